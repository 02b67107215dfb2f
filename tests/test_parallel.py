"""Compiled blocks; what needs the compiler runs in a program."""

import json
from pathlib import Path

import pytest
from processes import REPOSITORY, run_python

PROGRAM = Path(__file__).with_name("compiled_training.py")


@pytest.mark.slow
def test_a_step_over_all_tasks_is_compiled_and_chooses_its_kernels(tmp_path):
    # The program fails where a kind of call would go uncompiled.
    output = run_python([str(PROGRAM), str(tmp_path)], cwd=tmp_path, import_from=[REPOSITORY / "tests" / "tasks"])
    eager, compiled = [json.loads(line) for line in output.splitlines() if line.startswith('{"graphs"')]
    assert eager["graphs"] == [0, 0]
    first, second = compiled["graphs"]
    assert first == second
    assert 8 < first < 36  # more than torch's limit, but not one for every block
    assert eager["frames"] == compiled["frames"] == [2]
    for plain, other in zip(eager["history"], compiled["history"], strict=True):
        assert plain == pytest.approx(other, rel=1e-3, abs=1e-6)
