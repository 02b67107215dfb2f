"""65,536 prototypes, the released number, fit because logits exist in chunks."""

import sys
from pathlib import Path

import pytest
from processes import run_python

PROGRAM = Path(__file__).with_name("prototypes_memory.py")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_chunks_bound_the_memory_of_the_objective(tmp_path):
    (chunked, loss), (whole, whole_loss) = (
        map(float, run_python([str(PROGRAM), size], cwd=tmp_path, timeout=600).split()[-2:]) for size in ("64", "4096")
    )
    assert loss == pytest.approx(whole_loss, rel=1e-5)
    # Logits of all 1,600 masked patches take 400 MiB, and a step would hold five such arrays. Measured: 388 and 2,115;
    # a half of the smaller number are gradients and gathered prototypes.
    assert chunked < 600
    assert whole > 3 * chunked
