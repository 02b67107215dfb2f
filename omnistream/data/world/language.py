"""Text about a frame: captions, phrases that describe exactly one object, visible words."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from omnistream.data.batch import Region, TextTarget
from omnistream.data.world.clip import WorldClip
from omnistream.data.world.primitives import SHAPES
from omnistream.data.world.visible import Seen, legible_words, seen_objects

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_LARGE, _SMALL = 0.45, 0.33
"""Half widths in metres above which an object is called large and below which it is called small."""


@dataclass(frozen=True)
class LanguageConfig:
    """Length and detail of captions, and what counts as visible."""

    statements: tuple[int, int] = (2, 3)
    """Fewest and most sentences of a caption."""
    size_probability: float = 0.2
    """Probability that the size of a large or small object is mentioned."""
    min_area: float = 0.006
    """Objects that cover a smaller share of the frame are not mentioned."""
    min_word_height: float = 9.0
    """Minimum height in pixels of letters that count as legible."""

    def __post_init__(self) -> None:
        """Reject a caption without sentences."""
        if not 1 <= self.statements[0] <= self.statements[1]:
            raise ValueError(f"LanguageConfig.statements: expected 1 <= fewest <= most, got {self.statements}")


def speakable(clip: WorldClip, frame: int, config: LanguageConfig) -> list[Seen]:
    """Objects large enough in the frame to be mentioned; signs and buildings are not."""
    least = config.min_area * clip.instances[frame].size
    return [thing for thing in seen_objects(clip, frame) if thing.area >= least and thing.kind in SHAPES]


def caption(rng: np.random.Generator, clip: WorldClip, frame: int, config: LanguageConfig) -> TextTarget:
    """A caption: where it is, then true sentences of random kinds, each about what this frame shows."""
    things = speakable(clip, frame, config)
    words = legible_words(clip, frame, config.min_word_height)
    kinds = [_enumeration, _counts, _relation, _depth_order]
    wanted = int(rng.integers(config.statements[0], config.statements[1] + 1))
    said = [kinds[k](rng, things, config) for k in rng.permutation(len(kinds))]
    sentences = [sentence for sentence in said if sentence is not None][:wanted]
    if clip.is_video and len(clip.images) > 1 and (moving := _motion(clip, things)) is not None:
        sentences.append(moving)
    sentences += [f'it says "{word}".' for word, _ in words]
    place = "indoors." if clip.scene.is_room else "outdoors."
    return TextTarget("caption", " ".join([place, *sentences]))


def ocr(clip: WorldClip, frame: int, config: LanguageConfig) -> TextTarget | None:
    """The legible words with their boxes in reading order, or None if there are none."""
    words = legible_words(clip, frame, config.min_word_height)
    if not words:
        return None
    return TextTarget("ocr", " ".join(word for word, _ in words), tuple(Region(word, box) for word, box in words))


def grounding(rng: np.random.Generator, clip: WorldClip, frame: int, config: LanguageConfig) -> TextTarget | None:
    """A phrase that fits exactly one object, with its box; None if no object can be described unambiguously."""
    phrases = _referring_phrases(clip, frame, config)
    if not phrases:
        return None
    phrase, thing = phrases[int(rng.integers(len(phrases)))]
    return TextTarget("grounding", phrase, (Region(phrase, thing.box),))


def region(rng: np.random.Generator, clip: WorldClip, frame: int, config: LanguageConfig) -> TextTarget | None:
    """What is in the box of an object: colour and shape; None if nothing is large enough."""
    things = speakable(clip, frame, config)
    if not things:
        return None
    thing = things[int(rng.integers(len(things)))]
    return TextTarget("region", _name(thing), (Region(_name(thing), thing.box),))


def _name(thing: Seen) -> str:
    return f"{thing.colour} {thing.kind}"


def _described(rng: np.random.Generator, thing: Seen, config: LanguageConfig) -> str:
    """Name, sometimes with the size."""
    size = "large " if thing.half_width >= _LARGE else "small " if thing.half_width <= _SMALL else ""
    return f"{size if rng.random() < config.size_probability else ''}{_name(thing)}"


def _enumeration(rng: np.random.Generator, things: list[Seen], config: LanguageConfig) -> str | None:
    if not things:
        return None
    ordered = sorted(things, key=lambda thing: thing.centre[0])
    return "from left to right: " + ", ".join(_described(rng, thing, config) for thing in ordered) + "."


def _counts(rng: np.random.Generator, things: list[Seen], config: LanguageConfig) -> str:
    """How many of each kind, the most frequent first."""
    counts = Counter(thing.kind for thing in things)
    plurals = {"box": "boxes"}
    parts = [
        f"{_NUMBERS[min(n, 10)]} {kind if n == 1 else plurals.get(kind, kind + 's')}"
        for kind, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return (", ".join(parts) or "no objects") + "."


def _pairs(rng: np.random.Generator, things: list[Seen]) -> list[tuple[Seen, Seen]]:
    """All ordered pairs of objects whose names are unique, in random order."""
    counts = Counter(_name(thing) for thing in things)
    unique = [thing for thing in things if counts[_name(thing)] == 1]
    pairs = [(a, b) for a in unique for b in unique if a is not b]
    return [pairs[i] for i in rng.permutation(len(pairs))]


def _relation(rng: np.random.Generator, things: list[Seen], config: LanguageConfig) -> str | None:
    """Left or right, for two objects whose centres are clearly apart."""
    for a, b in _pairs(rng, things):
        gap = a.centre[0] - b.centre[0]
        if abs(gap) > 0.12:
            return f"the {_name(a)} is {'right' if gap > 0 else 'left'} of the {_name(b)}."
    return None


def _depth_order(rng: np.random.Generator, things: list[Seen], config: LanguageConfig) -> str | None:
    """In front or behind, for two objects whose depths clearly differ."""
    for a, b in _pairs(rng, things):
        if max(a.depth, b.depth) > 1.25 * min(a.depth, b.depth):
            return f"the {_name(a)} is {'behind' if a.depth > b.depth else 'in front of'} the {_name(b)}."
    return None


def _motion(clip: WorldClip, things: list[Seen]) -> str | None:
    """Which of the objects move through the world during the clip."""
    way = np.linalg.norm(clip.scene.position[-1] - clip.scene.position[0], axis=-1)
    moving = [_name(thing) for thing in things if way[thing.index] > 0.3]
    if not moving:
        return None
    return "moving: " + ", ".join(moving) + "."


def _referring_phrases(clip: WorldClip, frame: int, config: LanguageConfig) -> list[tuple[str, Seen]]:
    """For each object that may be mentioned, the shortest phrase that fits no other visible object, if there is one."""
    everything = [thing for thing in seen_objects(clip, frame) if thing.kind in SHAPES]
    least = config.min_area * clip.instances[frame].size
    found = []
    for thing in everything:
        if thing.area < least:
            continue
        same = [other for other in everything if _name(other) == _name(thing)]
        if len(same) == 1:
            found.append((_name(thing), thing))
        elif len(same) == 2 and abs(same[0].centre[0] - same[1].centre[0]) > 0.1:
            is_left = thing.centre[0] == min(other.centre[0] for other in same)
            found.append((f"{'left' if is_left else 'right'} {_name(thing)}", thing))
    return found
