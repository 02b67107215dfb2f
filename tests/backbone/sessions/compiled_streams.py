"""Compiled sessions against `StreamSession`, one JSON line per case; a program of its own, but for `go_on`.

The tests wrap every function in a check of shapes, which `torch.compile` cannot trace.
"""

import argparse
import io
import json

import torch
from torch._dynamo.utils import counters

from omnistream.backbone import OmniStream
from omnistream.backbone.sessions import compiled

SIZE = (16, 24)
RATIO = torch.tensor([0.5, 1.7])
CASES = {
    "shortest window": {"window": 1},
    "window": {"window": 2},
    "sink, camera, layers": {"window": 3, "sink": 2, "camera_token": True, "aspect_ratio": RATIO, "layers": (0,)},
    "growing": {"window": None},
    "at most 9": {"window": None, "max_frames": 9},
}
LIVES = {"official time": {"window": 2, "time_mode": "official"}, "all remembered": {"window": None}}


def build(num_blocks: int) -> OmniStream:
    """A small model whose every parameter is random."""
    torch.manual_seed(0)
    model = OmniStream("vit_nano").eval()
    model.blocks, model.num_layers = model.blocks[:num_blocks], num_blocks
    for name, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        weight = noise / parameter[0].numel() ** 0.5
        parameter.data = weight if name.endswith("weight") and parameter.dim() > 1 else 0.3 * noise + ("norm" in name)
    return model


def named(output) -> dict[str, torch.Tensor]:
    """The tensors of an output."""
    tensors = {"last": output.last, "cls": output.cls, "registers": output.registers}
    tensors |= {f"block_{layer}": patches for layer, patches in output.patches.items()}
    return tensors if output.camera is None else tensors | {"camera": output.camera}


class CornerHead:
    """The first block's patches in the corner, and how much the camera token differs from them."""

    layers, camera_token = (0,), True

    def __call__(self, output, size):
        corner = output.patches[0][..., 0, 0, :]
        return {"corner": corner, "camera": (output.camera - corner) * size[0] / size[1]}


def copied(state: dict) -> dict:
    """A state that has been in a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def go_on(model: OmniStream, options: dict, backend: str = "eager") -> dict[str, list[tuple]]:
    """Five frames, of which the third and fifth start a stream anew; then three more, by all ways to go on.

    Returns:
        By name of the way, pairs of features and results of heads: its own, and those of an uncompiled session.
    """
    images = torch.randn(2, 8, 3, *SIZE, device=model.cls_token.device)
    options = {"layers": (-1 + model.num_layers,), "heads": {"corner": CornerHead()}, **options}
    compile_too = {"compiled": True, "backend": backend}
    session, stream = model.stream(**compile_too, **options), model.stream(**options)
    pairs: dict[str, list[tuple]] = {"before": []}
    for i in range(5):
        for each in (session, stream):
            if i in (2, 4):
                each.reset([i // 2 - 1])
        outputs = [each.step(images[:, i : i + 1]) for each in (session, stream)]
        pairs["before"].append(tuple(named(output) | output.heads["corner"] for output in outputs))
    ways = {"fork": session.fork(), "the session": session}
    for name, saved in {"compiled": session, "uncompiled": stream}.items():
        state = copied(saved.state_dict())
        for kind, extra in {"compiled": compile_too, "uncompiled": {}}.items():
            ways[f"{kind} from {name}"] = model.stream(**extra, **options)
            ways[f"{kind} from {name}"].load_state_dict(state)
    session.fork().step(torch.randn_like(images[:, :3]))  # whatever another future brings
    rest = stream.step(images[:, 5:])
    for name, way in ways.items():
        outputs = [way.step(images[:, 5:]), rest]
        pairs[name] = [tuple(named(output) | output.heads["corner"] for output in outputs)]
        assert way.frame_indices.tolist() == stream.frame_indices.tolist() == [6, 4]
    return pairs


def run_life(model: OmniStream, options: dict, backend: str) -> dict:
    """Largest error of each way to go on."""
    pairs = go_on(model, options, backend)
    assert all(sorted(mine) == sorted(theirs) for both in pairs.values() for mine, theirs in both)
    errors = {
        name: max((mine[part] - theirs[part]).abs().max().item() for mine, theirs in both for part in theirs)
        for name, both in pairs.items()
    }
    return {"errors": errors}


def run(model: OmniStream, options: dict, backend: str, device: str) -> dict:
    """Nine frames, of which the sixth starts stream 1 anew and the last three come at once."""
    images = torch.randn(2, 9, 3, *SIZE, device=device)
    session, stream = model.stream(compiled=True, backend=backend, **options), model.stream(**options)
    counters.clear()
    kept, expected = [], []
    for chunk in images.split([1, 1, 1, 1, 1, 1, 3], dim=1):
        if len(kept) == 5:
            session.reset([1])
            stream.reset([1])
        chunk = chunk.contiguous()  # other strides for three frames than for one
        kept.append(named(session.step(chunk)))
        expected.append(named(stream.step(chunk)))
    graphs = counters["stats"]["unique_graphs"]
    session.reset()
    stream.reset()
    for _ in range(4):
        kept.append(named(session.step(images[:, :1])))
        expected.append(named(stream.step(images[:, :1])))
    after_reset = counters["stats"]["unique_graphs"] - graphs
    session.fork().step(images[:, :1])
    # Compared only now: features that a later step overwrote would differ.
    error = max((a[name] - b[name]).abs().max().item() for a, b in zip(kept, expected, strict=True) for name in b)
    return {
        "error": error,
        "std": expected[0]["last"].std().item(),
        "names": [sorted(a) == sorted(b) for a, b in zip(kept, expected, strict=True)].count(False),
        "graphs": graphs,
        "graphs after reset": after_reset,
        "graphs of a fork": counters["stats"]["unique_graphs"] - graphs - after_reset,
        "cudagraph skips": counters["inductor"]["cudagraph_skips"],
        "frame_indices": session.frame_indices.tolist(),
        "num_slots": session.static.num_slots,
        "num_bytes": session.num_bytes,
    }


def main() -> None:
    """Run the cases asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="+", choices=[*CASES, *LIVES])
    parser.add_argument("--backend", default="eager")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--blocks", type=int, default=1)
    options = parser.parse_args()
    compiled.FIRST_SLOTS = 2  # so that a few frames go through several sizes
    torch._dynamo.config.recompile_limit = 1  # a session must not depend on it
    model = build(options.blocks).to(options.device)
    for case in options.cases:
        if case in LIVES:
            print(json.dumps({"case": case} | run_life(model, LIVES[case], options.backend)), flush=True)
            continue
        arguments = {k: v.to(options.device) if k == "aspect_ratio" else v for k, v in CASES[case].items()}
        torch._dynamo.reset()
        print(json.dumps({"case": case} | run(model, arguments, options.backend, options.device)), flush=True)


if __name__ == "__main__":
    main()
