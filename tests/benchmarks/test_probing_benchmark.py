import probing
import pytest


def test_ratios_and_verdicts():
    lines = probing.table({"forward": 9.1, "test": 10.0, "recomputed": 4.0, "cached": 0.25}, 20)
    assert lines[3] == "| `omnistream test` | 2.00 images/s | 91.0 % of the backbone | at least 90 % | met |"
    assert lines[5] == "| epoch, features from a folder | 0.250 s | 16.0 times faster | at least 20 | missed |"


@pytest.mark.slow
def test_runs_small(capsys):
    probing.main(["--variant", "vit_nano", "--size", "32", "--images", "8", "--batch", "4", "--repeats", "1"])
    printed = capsys.readouterr().out
    assert "vit_nano, 32 px, 8 images, batch 4" in printed
    assert printed.count("| at least ") == 2
