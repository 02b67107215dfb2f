"""Captions, phrases and boxes are true for their frames."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from omnistream.data.world import LanguageConfig, WorldConfig, render_clip
from omnistream.data.world.language import caption, grounding, ocr, region, speakable
from omnistream.data.world.text import draw_overlay, word_texture
from omnistream.data.world.visible import legible_words, seen_objects

CONFIG = WorldConfig(num_frames=1, sign_probability=0.4)
LANGUAGE = LanguageConfig(statements=(4, 4))
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@pytest.fixture(scope="module")
def clips():
    return [render_clip(seed, CONFIG) for seed in range(40)]


def test_boxes_are_the_extents_of_the_masks(clips):
    for clip in clips:
        for thing in seen_objects(clip, 0):
            rows, columns = np.nonzero(clip.instances[0] == thing.index + 1)
            expected = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 64
            assert np.allclose(thing.box, expected)
            assert thing.area == len(rows)


def test_captions_are_true(clips):
    checked = Counter()
    for number, clip in enumerate(clips):
        text = caption(np.random.default_rng(number), clip, 0, LANGUAGE).text
        things = speakable(clip, 0, LANGUAGE)
        named = {f"{thing.colour} {thing.kind}": thing for thing in things}
        assert text.startswith("indoors." if clip.scene.is_room else "outdoors.")
        counts = Counter(thing.kind for thing in things)
        for word, kind in re.findall(r"(\w+) (ball|box|cylinder|cone)(?:s|es)?[,.]", text):
            if word in NUMBERS:
                assert counts[kind] == NUMBERS.index(word), text
                checked["count"] += 1
        for a, relation, b in re.findall(
            r"the (\w+ \w+) is (left|right|behind|in front)(?: of)? the (\w+ \w+)\.", text
        ):
            one, two = named[a], named[b]
            if relation in ("left", "right"):
                assert (one.box[0] + one.box[2] < two.box[0] + two.box[2]) is (relation == "left"), text
            else:
                assert (one.depth > two.depth) is (relation == "behind"), text
            checked[relation] += 1
        for enumeration in re.findall(r"from left to right: ([^.]*)\.", text):
            names = [re.sub("^(large|small) ", "", name) for name in enumeration.split(", ")]
            ordered = sorted(things, key=lambda thing: thing.box[0] + thing.box[2])
            assert names == [f"{thing.colour} {thing.kind}" for thing in ordered], text
            checked["order"] += 1
        assert re.findall(r'it says "(\w+)"', text) == [word for word, _ in legible_words(clip, 0)]
    assert min(checked[key] for key in ("count", "left", "right", "behind", "in front", "order")) >= 5, checked


def test_captions_of_clips_name_what_moves():
    said = 0
    for seed in range(15):
        clip = render_clip(seed, replace(CONFIG, num_frames=4, unordered_probability=0.0))
        text = caption(np.random.default_rng(seed), clip, 2, LANGUAGE).text
        way = np.linalg.norm(clip.scene.position[-1] - clip.scene.position[0], axis=-1)
        moving = [f"{t.colour} {t.kind}" for t in speakable(clip, 2, LANGUAGE) if way[t.index] > 0.3]
        found = re.findall(r"moving: ([^.]*)\.", text)
        assert (found[0].split(", ") if found else []) == moving
        said += bool(found)
    assert said > 3


def test_captions_describe_the_image_and_vary(clips):
    texts = [caption(np.random.default_rng(0), clip, 0, LANGUAGE).text for clip in clips]
    assert len(set(texts)) == len(texts)
    words = Counter(word for text in texts for word in text.split())
    share = np.array(list(words.values())) / sum(words.values())
    assert -(share * np.log2(share)).sum() > 4.5  # bits per word, more than a handful of stock phrases has


def test_phrases_fit_exactly_one_visible_object(clips):
    used = Counter()
    for number, clip in enumerate(clips):
        target = grounding(np.random.default_rng(number), clip, 0, LANGUAGE)
        if target is None:
            continue
        phrase, box = target.regions[0]
        side, name = re.fullmatch(r"(?:(left|right) )?(\w+ \w+)", phrase).groups()
        fits = [t for t in seen_objects(clip, 0) if f"{t.colour} {t.kind}" == name]
        if side:
            fits = sorted(fits, key=lambda t: t.centre[0])[0 if side == "left" else -1 :][:1]
        assert [t.box for t in fits] == [box]
        used[side] += 1
        target = region(np.random.default_rng(number), clip, 0, LANGUAGE)
        assert any(
            t.box == target.regions[0].box and f"{t.colour} {t.kind}" == target.text for t in seen_objects(clip, 0)
        )
    assert used[None] > 20


def test_the_box_of_a_sign_holds_its_word():
    """The sign fills the box, and the box contains ink and paper."""
    found = 0
    for seed in range(60):
        config = replace(CONFIG, sign_probability=1.0, size=(96, 96))
        clip = render_clip(seed, config)
        words = legible_words(clip, 0)
        if not words:
            continue
        found += 1
        (word, box), sign = words[0], max(clip.scene.words)
        assert word == clip.scene.words[sign]
        x1, y1, x2, y2 = np.array(box) * 96
        inside = clip.instances[0][int(y1) + 1 : int(y2), int(x1) + 1 : int(x2)] == sign + 1
        assert inside.mean() > 0.75  # in the corners of a slanted word's box, the background is visible
        pixels = clip.images[0].mean(0)[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))]
        assert np.ptp(pixels) > 60  # ink on paper
    assert found > 10


def test_overlays_are_boxed_tightly_and_hide_objects():
    for seed in range(10):
        plain, written = render_clip(seed, CONFIG), render_clip(seed, replace(CONFIG, overlay_probability=1.0))
        overlay = written.overlay
        x1, y1, x2, y2 = np.round(np.array(overlay.box) * 64).astype(int)
        assert 0 <= x1 < x2 <= 64
        assert 0 <= y1 < y2 <= 64
        assert y2 - y1 >= 5
        changed = (plain.images[0] != written.images[0]).any(0)
        outside = np.ones_like(changed)
        outside[overlay.plate] = False
        assert not changed[outside].any()
        assert np.array_equal(plain.depth, written.depth)
        covered = np.zeros_like(changed)
        covered[overlay.plate] = True
        for thing in seen_objects(written, 0):
            assert thing.area == ((written.instances[0] == thing.index + 1) & ~covered).sum()
        assert (overlay.word, overlay.box) in legible_words(written, 0)
        target = ocr(written, 0, LANGUAGE)
        assert overlay.word in target.text.split()
        tops = [entry.box[1] for entry in target.regions]
        assert tops == sorted(tops)


def test_text_on_a_blank_image_stays_inside_its_box():
    images = np.full((2, 3, 64, 64), 100, dtype=np.uint8)
    overlay = draw_overlay(
        np.random.default_rng(0), images, "MENU", difficulty=1.0
    )  # this difficulty has no background plate
    rows, columns = np.nonzero((images[1] != 100).any(0))
    assert np.allclose(overlay.box, np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 64)


def test_word_textures_have_ink_and_paper():
    texture = word_texture(np.random.default_rng(0), "SHOP", difficulty=0.0).astype(float).mean(-1)
    assert np.ptp(texture) > 200
    border = np.concatenate([texture[0], texture[-1], texture[:, 0], texture[:, -1]])
    assert np.ptp(border) == 0  # the margin is free


def test_fewer_than_one_sentence_is_refused():
    with pytest.raises(ValueError, match="statements"):
        LanguageConfig(statements=(0, 2))
