"""Signals sent to real processes: a second Ctrl-C, and a run of two processes of which one is told."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import REPOSITORY
from stopping import CONFIG

pytestmark = pytest.mark.slow


class Command:
    """`omnistream fit` in a process group of its own.

    Args:
        folder: Working directory; gets the configuration.
        arguments: Beside `-c run.yaml`.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        (folder / "run.yaml").write_text(CONFIG)
        paths = [str(REPOSITORY), str(REPOSITORY / "tests"), str(Path(__file__).parent)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "omnistream", "fit", "-c", "run.yaml", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.output = ""

    def read_until(self, text: str) -> None:
        assert self.process.stdout is not None
        while text not in self.output:
            part = os.read(self.process.stdout.fileno(), 65536)
            assert part, self.output[-3000:]
            self.output += part.decode()

    def end(self) -> int:
        """Read to the end; returns the exit code."""
        rest, _ = self.process.communicate(timeout=120)
        self.output += rest.decode()
        return self.process.returncode

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)


@pytest.fixture
def start(tmp_path):
    commands = []

    def start(*arguments: str) -> Command:
        commands.append(Command(tmp_path, *arguments))
        return commands[-1]

    yield start
    for command in commands:
        command.kill()


def test_a_second_ctrl_c_stops_at_once(start, tmp_path):
    sleeps = "--trainer.callbacks+={class_path: stopping.Sleep, init_args: {step: 2, seconds: 60}}"
    command = start(sleeps)
    command.read_until("sleeping")
    command.process.send_signal(signal.SIGINT)
    command.read_until("press Ctrl-C again to stop at once")
    time.sleep(0.5)
    command.process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    assert command.end() == 130
    assert time.monotonic() - sent < 10
    assert command.output.rstrip().endswith("omnistream: stopped at once")
    assert not list(tmp_path.rglob("*.ckpt"))


def test_one_press_passed_on_twice_counts_once(start):
    """As `timeout` and some schedulers do: they signal the process and its group."""
    command = start("--trainer.max_steps=1000")
    command.read_until("| 2/1000")
    for _ in range(2):
        command.process.send_signal(signal.SIGINT)
    assert command.end() == 130
    assert "saved runs/small/version_0/checkpoints/last.ckpt" in command.output


def test_two_processes_stop_at_the_same_step(start, tmp_path):
    two = ("--trainer.devices=2", "--trainer.strategy=ddp")
    long = ("--trainer.max_steps=1000", "--trainer.val_check_interval=1000")
    command = start(*two, *long)
    command.read_until("| 2/1000")
    command.process.send_signal(signal.SIGTERM)  # to the first process alone
    assert command.end() == 143, command.output[-3000:]
    step = int(re.findall(r"terminated after step (\d+); saved", command.output)[0])
    path = tmp_path / "runs" / "small" / "version_0" / "checkpoints" / "last.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == step
    again = start(*two, "--ckpt_path=last", f"--trainer.max_steps={step + 1}", "--trainer.limit_val_batches=0")
    assert again.end() == 0, again.output[-3000:]
    assert f"| {step + 1}/{step + 1}" in again.output
