"""Programs and processes that tests start: always fresh, since a fork of a process with threads may wait for ever."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

REPOSITORY = Path(__file__).resolve().parents[1]


def run_python(arguments: Sequence[str], cwd: Path, import_from: Sequence[Path] = (), timeout: float = 240) -> str:
    """Run an interpreter with one thread and this repository's package; returns what it printed.

    It leads a session of its own, so that none of its processes outlives a test that failed: a process whose peer has
    died waits in a collective for half an hour.
    """
    paths = [str(path) for path in (*import_from, REPOSITORY)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"not done after {timeout} s:\n{output[-3000:]}") from error
    assert process.returncode == 0, output[-3000:]
    return output


def run_ranks(function: Callable[..., Any], *arguments: Any, count: int = 2, timeout: float = 240) -> None:
    """Call `function(rank, *arguments)` in fresh processes; what one of them raises is raised here.

    Args:
        function: A function of a module; `with gloo(rank, folder)` in it makes a process group.
        arguments: What can be pickled.
        count: Number of processes.
        timeout: Seconds after which all of them are killed.
    """
    processes = torch.multiprocessing.start_processes(function, arguments, count, join=False, start_method="spawn")
    end = time.monotonic() + timeout
    try:
        while not processes.join(max(0.0, end - time.monotonic())):
            if time.monotonic() >= end:
                raise AssertionError(f"{function.__name__}: not done after {timeout} s")
    finally:
        for process in processes.processes:
            process.kill()


@contextmanager
def gloo(rank: int, folder: Path | str, count: int = 2) -> Iterator[None]:
    """A process group of this many processes, which meet at a file in the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    yield
    dist.destroy_process_group()
