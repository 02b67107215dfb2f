"""A run without the sample data says so in its last lines."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_skipped_sample_tests_are_counted(tmp_path):
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_two.py").write_text("def test_a(sample_data): pass\ndef test_b(sample_data): pass\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_two.py"],
        cwd=tmp_path,
        env=os.environ | {"OMNISTREAM_SAMPLE_DATA": str(tmp_path / "nowhere")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0
    line = f"2 TESTS ON SAMPLE FILES DID NOT RUN: no sample files at {tmp_path}/nowhere; set OMNISTREAM_SAMPLE_DATA"
    assert run.stdout.count(line) == 1
    assert run.stdout.splitlines()[-1].startswith("2 skipped")
