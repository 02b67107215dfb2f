"""One training step over all tasks, compiled and not, as two JSON lines; a program of its own.

The tests wrap every function in a check of shapes, which `torch.compile` cannot trace.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from multitask_runs import fit, make_data, make_module

from omnistream.backbone import clip_attention
from omnistream.parallel import compile_blocks

graphs: list[int] = []
chosen: list[clip_attention.ClipKind] = []


def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
    """Runs a graph as it is, and counts it."""
    graphs.append(len(inputs))
    return graph.forward


def choose(kind: clip_attention.ClipKind) -> str:
    """Takes prefixes, and keeps what was asked."""
    assert not torch.compiler.is_compiling()
    chosen.append(kind)
    return "prefix"


def main() -> None:
    """Print the graphs after each of two steps, the lengths of the clips chosen for, and the losses."""
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    clip_attention.choose = choose
    for is_compiled in (False, True):
        graphs.clear()
        chosen.clear()
        numbers: list[int] = []
        module = make_module()
        module.backbone.activation_checkpointing = True  # as in the paper's stages
        if is_compiled:
            compile_blocks(module, backend=backend)
        step = module.training_step

        def counted(*arguments: Any, step: Any = step, numbers: list[int] = numbers) -> None:
            step(*arguments)
            numbers.append(len(graphs))

        module.training_step = counted
        history = fit(Path(sys.argv[1]), 2, module=module, data=make_data())
        frames = sorted({kind.num_frames for kind in chosen})
        print(json.dumps({"graphs": numbers, "frames": frames, "history": history}), flush=True)


if __name__ == "__main__":
    main()
