import probing
import pytest


def test_ratios_and_verdicts():
    lines = probing.table({"forward": 9.1, "test": 10.0, "recomputed": 4.0, "cached": 0.25}, 20)
    assert lines[3] == "| `omnistream test` | 2.00 images/s | 91.0 % of the backbone | at least 90 % | met |"
    assert lines[5] == "| epoch, features from a folder | 0.250 s | 16.0 times faster | at least 20 | missed |"
    assert len(probing.LEARNING_RATES) == 13
    assert probing.LEARNING_RATES[:4] == pytest.approx([1e-5, 2e-5, 5e-5, 1e-4])
    assert probing.LEARNING_RATES[-2:] == pytest.approx([5e-2, 1e-1])


@pytest.mark.slow
def test_runs_small(capsys):
    probing.main(["--variant", "vit_nano", "--size", "32", "--images", "8", "--batch", "4", "--repeats", "1"])
    printed = capsys.readouterr().out
    assert "vit_nano, 32 px, 8 images, batch 4" in printed
    assert printed.count("| at least ") == 2
