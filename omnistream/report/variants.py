"""Settings in which results of one model differ and that change its numbers: each such variant is a column of its own.

Only streaming geometry evaluations declare them: what the model remembers and where its poses come from, the precision,
and for each protocol the frames, images and alignment.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omnistream.evaluation.results import EvaluationResult

_VIDEOS = ("reader", "options", "list", "picked", "frames", "images")
_SCORES = ("alignments", "max_depth", "clip_to", "voxel", "threshold")


def variants(results: Sequence[tuple[str, EvaluationResult]]) -> list[str]:
    """For each result the settings in which it differs from others of the same model; empty if there is no difference.

    Args:
        results: With the identity of their models.
    """
    of_models = _differences([model for model, _ in results], [_model_settings(one) for _, one in results])
    groups = [(model, own, one.protocol) for (model, one), own in zip(results, of_models, strict=True)]
    of_protocols = _differences(groups, [_protocol_settings(one) for _, one in results])
    return [", ".join(filter(None, both)) for both in zip(of_models, of_protocols, strict=True)]


def _model_settings(result: EvaluationResult) -> dict[str, str]:
    model = result.settings.get("model")
    if not isinstance(model, Mapping):
        return {}
    return _flat(model) | {"precision": str(result.environment.get("precision"))}


def _protocol_settings(result: EvaluationResult) -> dict[str, str]:
    videos = result.settings.get("videos")
    if not isinstance(videos, Mapping):
        return {}
    chosen = {name: videos[name] for name in _VIDEOS if name in videos}
    return _flat(chosen | {name: result.settings[name] for name in _SCORES if name in result.settings})


def _differences(groups: Iterable[Any], settings: Sequence[dict[str, str]]) -> list[str]:
    """Of each result the settings that are not the same in the whole group, as words; none declares no difference."""
    values: dict[Any, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    members = list(groups)
    declared: dict[Any, list[dict[str, str]]] = defaultdict(list)
    for group, own in zip(members, settings, strict=True):
        if own:
            declared[group].append(own)
    for group, several in declared.items():
        for name in {name for own in several for name in own}:
            values[group][name] = {own.get(name, "none") for own in several}
    return [
        ", ".join(f"{name} {own.get(name, 'none')}" for name in sorted(values[group]) if len(values[group][name]) > 1)
        if own
        else ""
        for group, own in zip(members, settings, strict=True)
    ]


def _flat(value: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Nested settings under names such as `session window`."""
    found: dict[str, str] = {}
    for name, one in value.items():
        if isinstance(one, Mapping):
            found |= _flat(one, f"{before}{name} ")
        else:
            found[before + name] = "none" if one is None else one if isinstance(one, str) else json.dumps(one)
    return found
