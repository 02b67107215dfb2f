"""Fixtures shared by all tests."""

import os
from collections import Counter
from pathlib import Path

import jaxtyping
import pytest
import torch

# The tensors of the tests are small: more threads are slower, and very much so beside another program.
torch.set_num_threads(1)

MISSING_FOLDER = "no sample files at"


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_process_group_is_left():
    """A process group goes into a process of its own (`processes.run_ranks`): its threads do not survive a fork."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        pytest.fail("a process group was made in the process of the tests")


@pytest.fixture(autouse=True)
def _same_environment():
    """Commands and trainers leave a seed and a port behind, which programs of later tests would take over."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def _own_caches(tmp_path_factory):
    """Indexes of data sets are not kept in the home of whoever runs the tests."""
    os.environ["OMNISTREAM_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def no_type_checks():
    """Lets a wrong literal reach the code's own message, as it does outside the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """Folder with real sample data; tests that need it are skipped without it, and the summary says so."""
    return shared_folder("data", "OMNISTREAM_SAMPLE_DATA")


@pytest.fixture(scope="session")
def sample_cases() -> Path:
    """Folder with files that were once read wrongly; skipped without it like `sample_data`."""
    return shared_folder("cases", "OMNISTREAM_SAMPLE_CASES")


def shared_folder(name: str, variable: str) -> Path:
    """The folder that an environment variable names, by default `../shared/NAME` beside the checkout."""
    path = Path(os.environ.get(variable, Path(__file__).resolve().parents[2] / "shared" / name))
    if not path.is_dir():
        pytest.skip(f"{MISSING_FOLDER} {path}; set {variable}")
    return path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were skipped for want of sample files: the run says less than it seems to."""
    reasons = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", [])]
    missing = Counter(reason.removeprefix("Skipped: ") for reason in reasons if MISSING_FOLDER in reason)
    for reason, count in missing.items():
        terminalreporter.write_line(f"{count} TESTS ON SAMPLE FILES DID NOT RUN: {reason}", red=True, bold=True)
