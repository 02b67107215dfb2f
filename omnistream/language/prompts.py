"""Instruction and answer for every kind of text target, and boxes in and out of text.

The instructions are ours: the paper does not give its wording. Boxes are Qwen's tokens around integers 0-999 relative
to the image as the model sees it.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from omnistream.boxes import Box
from omnistream.data.batch import Region, TextTarget
from omnistream.language.tokenizer import BOX_END, BOX_START, MARKUP_TOKENS, OBJECT_REF_END, OBJECT_REF_START

INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "caption": (
        "Describe the image.",
        "What can be seen here?",
        "Write a caption for this scene.",
        "Say what is shown.",
        "Give a description of the picture.",
    ),
    "ocr": (
        "Read the text in the image and locate every word.",
        "Which words are written here, and where?",
        "Transcribe all visible text with its boxes.",
        "List the written words in reading order with their positions.",
    ),
    "grounding": (
        "Locate {text}.",
        "Where is {text}?",
        "Give the bounding box of {text}.",
        "Find {text} in the image.",
    ),
    "region": (
        "Describe the region {box}.",
        "What is inside {box}?",
        "Name what is shown in {box}.",
        "What does the box {box} contain?",
    ),
}
NO_TEXT_ANSWER = "There is no text."
_BINS = 1000
# Qwen3's thinking and tool tokens are not flagged special, so no tokenizer setting keeps them from being parsed.
_CONTROL_LITERAL = re.compile(r"<\|[^<>]*?\|>|</?(?:think|tool_call|tool_response)>")
_PHRASE = re.escape(OBJECT_REF_START) + r"(?P<phrase>.*?)" + re.escape(OBJECT_REF_END)
_NUMBERS = r"\(\s*(?P<x1>\d+)\s*,\s*(?P<y1>\d+)\s*\)\s*,?\s*\(\s*(?P<x2>\d+)\s*,\s*(?P<y2>\d+)\s*\)"
_PHRASE_OR_BOX = re.compile(f"{_PHRASE}|{_NUMBERS}", re.DOTALL)
_BOX_BLOCK = re.compile(re.escape(BOX_START) + r".*?(?:" + re.escape(BOX_END) + r"|$)", re.DOTALL)


class Prompt(NamedTuple):
    """The two sides of one exchange; only phrase and box tokens occur in them as special tokens."""

    instruction: str
    answer: str


def clean(text: str) -> str:
    """Text from data on one line, without anything that a tokenizer could parse as a control token."""
    stripped = _CONTROL_LITERAL.sub("", text)
    while stripped != text:  # removing one literal can join the halves of another
        text, stripped = stripped, _CONTROL_LITERAL.sub("", stripped)
    visible = (" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c) != "Cc")
    return " ".join("".join(visible).split())


def format_box(box: tuple[float, float, float, float]) -> str:
    """A box as text: corners as min(999, floor(1000 x)), between Qwen's box tokens.

    Raises:
        ValueError: If a coordinate is not in [0, 1].
    """
    if not all(0.0 <= value <= 1.0 for value in box):
        raise ValueError(f"box coordinates must be relative to the image, in [0, 1]; got {box}")
    x1, y1, x2, y2 = (min(_BINS - 1, int(_BINS * value)) for value in box)
    return f"{BOX_START}({x1},{y1}),({x2},{y2}){BOX_END}"


def format_regions(regions: Sequence[Region]) -> str:
    """Phrases with their boxes; consecutive regions of one phrase share it."""
    parts, previous = [], None
    for region in regions:
        phrase = clean(region.text)
        if phrase != previous:
            parts.append(f"{OBJECT_REF_START}{phrase}{OBJECT_REF_END}")
        parts.append(format_box(region.box))
        previous = phrase
    return "".join(parts)


def parse_regions(text: str) -> list[Region]:
    """Every box in generated text with the phrase before it ("" if none), corners at bin centres.

    Malformed text is parsed as far as possible: missing box tokens do not matter, numbers above 999 count as 999,
    swapped corners are put in order, incomplete boxes are skipped.
    """
    regions, phrase = [], ""
    for match in _PHRASE_OR_BOX.finditer(text):
        if match["phrase"] is not None:
            phrase = strip_markup(match["phrase"])
            continue
        # At most four digits decide: an arbitrarily long number must not reach int().
        x1, y1, x2, y2 = (
            (min(_BINS - 1, int(match[key].lstrip("0")[:4] or "0")) + 0.5) / _BINS for key in ("x1", "y1", "x2", "y2")
        )
        regions.append(Region(phrase, Box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))))
    return regions


def strip_markup(text: str) -> str:
    """Text without boxes and without the phrase tokens; words stay apart."""
    text = _BOX_BLOCK.sub(" ", text)
    for token in MARKUP_TOKENS:
        text = text.replace(token, " ")
    return " ".join(text.split())


def reading_order(regions: Sequence[Region]) -> list[Region]:
    """Regions line by line from the top, each line from the left.

    A word belongs to the current line if its vertical centre is less than half of the line's mean height below the
    line's mean centre.
    """
    lines: list[list[Region]] = []
    for region in sorted(regions, key=lambda r: (r.box[1] + r.box[3], r.box[0])):
        _, top, _, bottom = region.box
        if lines:
            tops = [r.box[1] for r in lines[-1]]
            bottoms = [r.box[3] for r in lines[-1]]
            centre, height = float(np.mean(tops + bottoms)), float(np.mean(bottoms) - np.mean(tops))
            if (top + bottom) / 2 - centre <= height / 2:
                lines[-1].append(region)
                continue
        lines.append([region])
    return [region for line in lines for region in sorted(line, key=lambda r: r.box[0])]


def make_prompt(target: TextTarget, seed: int) -> Prompt:
    """Instruction and answer for a target.

    Args:
        target: The text target.
        seed: Chooses among the paraphrased instructions.

    Raises:
        ValueError: If the target lacks the regions its task needs or names an unknown task.
    """
    if target.task not in INSTRUCTIONS:
        raise ValueError(f"unknown text task '{target.task}'; use one of {', '.join(INSTRUCTIONS)}")
    if target.task in ("grounding", "region") and not target.regions:
        raise ValueError(f"a {target.task} target needs at least one region; text was '{target.text}'")
    choices = INSTRUCTIONS[target.task]
    instruction = choices[int(np.random.default_rng(seed).integers(len(choices)))]
    text = clean(target.text)
    if target.task == "caption":
        return Prompt(instruction, text)
    if target.task == "ocr":
        return Prompt(instruction, format_regions(reading_order(target.regions)) or NO_TEXT_ANSWER)
    if target.task == "grounding":
        # Not str.format: the phrase is data and may hold braces.
        answer = format_regions([Region(target.text, region.box) for region in target.regions])
        return Prompt(instruction.replace("{text}", text), answer)
    return Prompt(instruction.replace("{box}", format_box(target.regions[0].box)), text)
