"""Runs of `omnistream stream`, in this process or a separate one."""

import json
import os
import subprocess
import sys
from pathlib import Path

from omnistream.cli import main

ROOT = Path(__file__).resolve().parents[2]
RANDOM = ["--random", "--variant", "vit_nano", "--size", "32"]


def stream(*arguments):
    main(["stream", *map(str, arguments)])


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def process(code_or_module, cwd):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *map(str, code_or_module)],
        cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
