import json

import pytest
from action_files import write_something

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.videos import SomethingSomething, SpatialViews


@pytest.mark.parametrize(
    ("prefix", "folder"), [("", "labels"), ("something-something-v2-", ""), ("something-something-v2-", "annotations")]
)
def test_official_files(tmp_path, prefix, folder):
    write_something(tmp_path, prefix=prefix, folder=folder)
    data = SomethingSomething(tmp_path, "val", num_frames=2, stride=1)
    assert data.classes == ["Approaching something with your camera", "Pulling something from left to right"]
    assert data.labels.tolist() == [1, 0, 1, 0]
    assert data[0].name.endswith("20bn-something-something-v2/2000.webm")
    assert float(data[0].images.float().mean()) == pytest.approx(180, abs=8)
    assert float(data[1].images.float().mean()) == pytest.approx(30, abs=8)
    assert SomethingSomething(tmp_path, "train", num_frames=2).files[3].stem == "1003"


def test_labels_of_the_test_split(tmp_path):
    write_something(tmp_path)
    assert SomethingSomething(tmp_path, "test", num_frames=2).labels.tolist() == [-1] * 4
    answers = "3000;Pulling something from left to right\n3001;Approaching something with your camera\n"
    (tmp_path / "labels" / "test-answers.csv").write_text(answers)
    assert SomethingSomething(tmp_path, "test", num_frames=2).labels.tolist() == [1, 0, -1, -1]


def test_mistakes_are_named(tmp_path):
    with pytest.raises(DatasetNotFoundError, match=r"holds no labels.json or something-something-v2-labels.json"):
        SomethingSomething(tmp_path)
    write_something(tmp_path, num_videos=1)
    train = tmp_path / "labels" / "train.json"
    record = json.loads(train.read_text())[0]
    for records, message in [
        ([record | {"template": "Eating [something]"}], "1000 is of class 'Eating something', which is not among"),
        ([{"id": "1000"}], "video 1000 has no template"),
        ([{"template": "x"}], "expected records with an id"),
        ({}, "expected a list, got a dict"),
        ([record | {"id": "7"}], "holds none of the 1 videos of .*train.json, such as 7"),
    ]:
        train.write_text(json.dumps(records))
        with pytest.raises((ValueError, DatasetNotFoundError), match=message):
            SomethingSomething(tmp_path)
    train.write_text("[{")
    with pytest.raises(ValueError, match=r"train.json is not a JSON file"):
        SomethingSomething(tmp_path)
    labels = tmp_path / "labels" / "labels.json"
    labels.write_text(json.dumps({"a": "0", "b": "2"}))
    with pytest.raises(ValueError, match="the 2 classes are not numbered 0 to 1"):
        SomethingSomething(tmp_path)
    labels.write_text(json.dumps({"a": "zero"}))
    with pytest.raises(ValueError, match="expected a number for every template"):
        SomethingSomething(tmp_path)


def test_a_real_video(tmp_path, sample_data):
    write_something(tmp_path, num_videos=1)
    template = "Poking [something] so that it falls over"
    labels = {f"class {i:03d}": str(i) for i in range(57)} | {"Poking something so that it falls over": "57"}
    (tmp_path / "labels" / "labels.json").write_text(json.dumps(labels))
    record = {"id": "166766", "label": "poking a box", "template": template, "placeholders": ["a box"]}
    (tmp_path / "labels" / "validation.json").write_text(json.dumps([record]))
    video = sample_data / "videos" / "something_something_v2" / "id_166766" / "vid.mp4"
    (tmp_path / "20bn-something-something-v2" / "166766.webm").symlink_to(video)
    data = SomethingSomething(tmp_path, "val", SpatialViews(64, 3), num_segments=2)
    clip = data[0]
    assert int(clip.label) == 57
    assert clip.images.shape == (3, 32, 3, 64, 64)
    assert (clip.images[:, :16] == clip.images[:, 16:]).all()  # 49 frames: both segments are the same
    assert (clip.images[0] != clip.images[2]).float().mean() > 0.5
