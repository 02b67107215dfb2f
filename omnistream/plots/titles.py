"""Titles for what is logged and plotted under keys such as `geometry/depth/0`."""

import re

TASKS = {"ssl": "Self-supervision", "geometry": "Geometry", "captioning": "Captioning"}
STREAMS = {"image": "images", "video": "videos"}
PLOTS = {
    "views": "views and masks",
    "features": "patch features",
    "depth": "depth",
    "camera": "camera path",
    "answers": "generated answers",
}
TERMS = {
    "abs_rel": "Abs Rel",
    "abs_rel_constant": "Abs Rel of the best constant depth",
    "delta1": "share within a ratio of 1.25",
    "token_loss": "token loss",
    "token_loss_unigram": "token loss of the token frequencies alone",
    "token_loss_other_image": "token loss when shown another image",
    "word_accuracy": "words in common",
    "exact_match": "exactly right answers",
    "box_iou": "IoU of the boxes",
}
ALIGNMENTS = {"_median": ", median-aligned", "_scale": ", scale-aligned"}


def task_title(key: str) -> str:
    """Title of a task, or of one of its streams: `ssl/image` is "Self-supervision on images"."""
    task, _, stream = key.partition("/")
    title = TASKS.get(task, _words(task))
    return f"{title} on {STREAMS.get(stream, stream.replace('_', ' '))}" if stream else title


def term_title(term: str) -> str:
    """Title of a loss term or metric: `abs_rel_median` is "Abs Rel, median-aligned"."""
    for suffix, words in ALIGNMENTS.items():
        if term.endswith(suffix) and term not in TERMS:
            return term_title(term.removesuffix(suffix)) + words
    return TERMS.get(term, term.replace("_", " "))


def metric_title(key: str) -> str:
    """Title of a logged number: `geometry/abs_rel_median` is "Geometry: Abs Rel, median-aligned"."""
    task, _, term = key.rpartition("/")
    return f"{task_title(task)}: {term_title(term)}" if task else term_title(term)


def plot_title(key: str) -> str:
    """Title of a plot: `geometry/depth/0` is "Geometry: depth, sample 1"."""
    match = re.fullmatch(r"(?P<task>.+?)/(?P<kind>[^/]+)(/(?P<index>\d+))?", key)
    if match is None:
        return _words(key)
    kind = PLOTS.get(match["kind"], match["kind"].replace("_", " "))
    sample = "" if match["index"] is None else f", sample {int(match['index']) + 1}"
    return f"{task_title(match['task'])}: {kind}{sample}"


def _words(name: str) -> str:
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]
