"""Predictions of several other programs in one report."""

import numpy as np
import pytest
from listed_videos import data, evaluated, save, three

from omnistream.evaluation import SavedVideos
from omnistream.report.comparison import find_results, model_names
from omnistream.tasks.reconstruction import VideoDepth

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_programs_are_told_apart_by_name_and_folder(tmp_path):
    folders = [tmp_path / "one" / "preds", tmp_path / "two" / "preds", tmp_path / "cut3r"]
    for number, folder in enumerate(folders):
        for name, frames in three().items():
            save(folder / name, frames)
            path = folder / name / "depth" / "0001.npy"
            np.save(path, np.load(path) + number)
    models = [*map(SavedVideos, folders), SavedVideos(folders[2], name="CUT3R, 512")]
    for number, model in enumerate(models):
        result = evaluated(VideoDepth(model), data(three()), tmp_path / "results" / str(number))
        assert result.model["weights_sha256"] is None
    found = find_results([tmp_path / "results"])
    names = model_names(found)
    assert len(names) == 4
    first, second = (f"preds: folder {folder.resolve()}" for folder in folders[:2])
    assert set(names.values()) == {first, second, "cut3r", "CUT3R, 512"}
