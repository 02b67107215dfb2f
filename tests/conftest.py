"""Fixtures shared by all tests."""

import os
from pathlib import Path

import jaxtyping
import pytest
import torch

# The tensors of the tests are small: more threads are slower, and very much so beside another program.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


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
    """Folder with real sample data; tests that need it are skipped where it is not at hand."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("OMNISTREAM_SAMPLE_DATA", default))
    if not path.is_dir():
        pytest.skip(f"no sample data at {path}; set OMNISTREAM_SAMPLE_DATA")
    return path
