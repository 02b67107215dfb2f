"""Random rescaling of positions in two processes that were seeded alike."""

from pathlib import Path

import torch
from processes import gloo, run_ranks

from omnistream.backbone import create_model
from omnistream.backbone import model as model_module


def forwards(model, seed, number):
    """Factors on time and space of some forward passes of a training step, and what torch's generator gives then."""
    torch.manual_seed(seed)
    found, original = [], model_module.rope_tables
    model_module.rope_tables = lambda *arguments: found.append(arguments[-2:]) or original(*arguments)
    try:
        for _ in range(number):
            model(torch.zeros(1, 1, 3, 8, 8))
    finally:
        model_module.rope_tables = original
    return found, torch.rand(()).item()


def work(rank, folder):
    with gloo(rank, folder):
        model = create_model("vit_nano").train()
        first, second, again = (forwards(model, seed, 3) for seed in (1, 2, 1))
        torch.save({"first": first, "second": second, "again": again}, Path(folder) / f"{rank}.pt")


def test_every_process_and_forward_draws_its_own_and_a_resumed_step_repeats_them(tmp_path):
    run_ranks(work, str(tmp_path))
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    drawn = [factor for rank in found for step in ("first", "second") for pair in rank[step][0] for factor in pair]
    assert len(set(drawn)) == len(drawn) == 2 * 2 * 3 * 2
    assert all(0.5 <= factor <= 2 for factor in drawn)
    for rank in found:
        assert rank["again"] == rank["first"]
        assert rank["first"][1] == found[0]["first"][1]  # other draws are alike everywhere
    alone = create_model("vit_nano").train()
    assert forwards(alone, 1, 3) == (list(map(tuple, found[0]["first"][0])), found[0]["first"][1])
