"""Writers of scenes lie with the tests of their readers."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "data" / "scenes"))
