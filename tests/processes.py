"""Programs that tests start, which may start further processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def run_python(arguments: Sequence[str], cwd: Path, import_from: Sequence[Path] = (), timeout: float = 240) -> str:
    """Run an interpreter with one thread and this repository's package; returns what it printed.

    It leads a session of its own, so that none of its processes outlives a test that failed: a process whose peer has
    died waits in a collective for half an hour.
    """
    paths = [str(path) for path in (*import_from, REPOSITORY)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    environment.pop("PL_GLOBAL_SEED", None)  # of a command that an earlier test ran: DDP and FSDP2 would start with it
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
