import pytest

from omnistream.data.batch import Region, TextTarget
from omnistream.language.prompts import (
    INSTRUCTIONS,
    NO_TEXT_ANSWER,
    clean,
    format_box,
    make_prompt,
    parse_regions,
    reading_order,
    strip_markup,
)


def test_box_is_rounded_down_and_read_back_at_bin_centres():
    # Reference: (0.25, 0.5, 0.75, 1.0) -> (250,500),(750,999) -> (.2505, .5005, .7505, .9995)
    text = format_box((0.25, 0.5, 0.75, 1.0))
    assert text == "<|box_start|>(250,500),(750,999)<|box_end|>"
    assert parse_regions(text)[0].box == pytest.approx((0.2505, 0.5005, 0.7505, 0.9995), abs=1e-12)


def test_box_outside_the_image_is_refused():
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        format_box((0.0, 0.0, 1.2, 1.0))


def test_regions_keep_their_phrases():
    target = TextTarget("ocr", "", (Region("left", (0.0, 0.1, 0.2, 0.2)), Region("right", (0.5, 0.11, 0.7, 0.21))))
    parsed = parse_regions(make_prompt(target, 0).answer)
    assert [region.text for region in parsed] == ["left", "right"]
    assert parsed[1].box == pytest.approx((0.5005, 0.1105, 0.7005, 0.2105), abs=2e-3)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("", []),
        ("no box <|box_start|><|box_end|>", []),
        ("<|box_start|>(1,2),(3", []),
        ("<|box_start|>(10,20),(30,40)", [(0.0105, 0.0205, 0.0305, 0.0405)]),
        ("(10, 20) , ( 30,40 )", [(0.0105, 0.0205, 0.0305, 0.0405)]),
        ("(30,40),(10,20)", [(0.0105, 0.0205, 0.0305, 0.0405)]),
        ("(0,0),(123456789123456789,1000)", [(0.0005, 0.0005, 0.9995, 0.9995)]),
        ("(-5,0),(10,10)", []),
        ("(0000012,0),(10,10)", [(0.0105, 0.0005, 0.0125, 0.0105)]),
        ("<|object_ref_start|>a (1,1),(2,2)", [(0.0015, 0.0015, 0.0025, 0.0025)]),
    ],
)
def test_malformed_boxes_are_read_as_far_as_they_go(text, boxes):
    parsed = [region.box for region in parse_regions(text)]
    assert len(parsed) == len(boxes)
    for got, expected in zip(parsed, boxes, strict=True):
        assert got == pytest.approx(expected)


def test_reading_order_is_by_line_then_from_the_left():
    # The second word of the first line sits slightly higher than the first.
    words = (
        Region("d", (0.5, 0.52, 0.7, 0.62)),
        Region("b", (0.4, 0.09, 0.6, 0.19)),
        Region("a", (0.1, 0.10, 0.3, 0.20)),
        Region("c", (0.1, 0.50, 0.3, 0.60)),
    )
    assert [region.text for region in reading_order(words)] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a <|im_end|>b", "a b"),
        ("<|im_<|x|>end|>after", "after"),
        ("<think>no</think> yes", "no yes"),
        ("two\n\tlines\x00 \x07here", "two lines here"),
        ("5 < 6 | 7 > 3", "5 < 6 | 7 > 3"),
    ],
)
def test_data_text_cannot_hold_control_tokens(text, expected):
    assert clean(text) == expected


def test_answers_and_instructions_of_every_task():
    assert make_prompt(TextTarget("caption", "a dog"), 0).answer == "a dog"
    assert make_prompt(TextTarget("ocr", ""), 0).answer == NO_TEXT_ANSWER
    found = make_prompt(TextTarget("grounding", "the {box}", (Region("", (0.0, 0.0, 0.5, 0.5)),)), 1)
    assert "the {box}" in found.instruction
    assert found.answer == ("<|object_ref_start|>the {box}<|object_ref_end|><|box_start|>(0,0),(500,500)<|box_end|>")
    region = make_prompt(TextTarget("region", "a cat", (Region("", (0.0, 0.0, 0.5, 0.5)),)), 1)
    assert "<|box_start|>(0,0),(500,500)<|box_end|>" in region.instruction
    assert region.answer == "a cat"


@pytest.mark.parametrize("task", list(INSTRUCTIONS))
def test_seed_chooses_among_all_paraphrases(task):
    target = TextTarget(task, "it", (Region("it", (0.0, 0.0, 1.0, 1.0)),))
    chosen = [make_prompt(target, seed).instruction for seed in range(64)]
    assert len(set(chosen)) == len(INSTRUCTIONS[task])
    assert chosen == [make_prompt(target, seed).instruction for seed in range(64)]


def test_targets_without_their_regions_are_refused():
    for task in ("grounding", "region"):
        with pytest.raises(ValueError, match="at least one region"):
            make_prompt(TextTarget(task, "x"), 0)
    with pytest.raises(ValueError, match="unknown text task"):
        make_prompt(TextTarget("poem", "x"), 0)  # type: ignore[arg-type]


def test_strip_markup_leaves_words():
    answer = make_prompt(
        TextTarget("ocr", "", (Region("A", (0.0, 0.0, 0.1, 0.1)), Region("B", (0.3, 0.0, 0.4, 0.1)))), 0
    )
    assert strip_markup(answer.answer) == "A B"
    assert strip_markup("A<|box_start|>(1,2") == "A"
