"""Lists and trajectories of the TUM RGB-D benchmark."""

import numpy as np
import pytest

from omnistream.data.media import MediaReadError
from omnistream.data.media.tum import read_file_list, read_trajectory

IDENTITY = "0 0 0 0 0 0 1"


def written(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_text(text)
    return path


def test_a_list_with_comments_tabs_and_commas(tmp_path):
    text = "# color images\n\n1.5 rgb/b.png\n  # more\n0.5\trgb/a.png\n2.5,rgb/c.png\r\n3.5, rgb/d.png extra\n"
    found = read_file_list(written(tmp_path, text))
    assert found.stamps.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert found.files == ["rgb/a.png", "rgb/b.png", "rgb/c.png", "rgb/d.png"]


def test_the_mark_of_another_editor_is_no_part_of_the_first_timestamp(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf1.5 rgb/b.png\r\n")
    assert read_file_list(path).stamps.tolist() == [1.5]


def test_of_repeated_timestamps_the_last_counts(tmp_path, caplog):
    path = written(tmp_path, "# c\n1.0 a.png\n2.0 b.png\n1.00 c.png\n2.0 d.png\n")
    found = read_file_list(path)
    assert (found.stamps.tolist(), found.files) == ([1.0, 2.0], ["c.png", "d.png"])
    assert f"{path}: 2 lines are skipped because a later line has the same timestamp, such as line 2 (line 4)" in (
        caplog.text
    )
    trajectory = read_trajectory(written(tmp_path, f"1 9 {IDENTITY[2:]}\n1 5 {IDENTITY[2:]}\n"))
    assert trajectory.pose(0)[:3, 3].tolist() == [5, 0, 0]


def test_lines_without_a_path_are_skipped_with_a_warning(tmp_path, caplog):
    path = written(tmp_path, "1.0 a.png\n2.0\n3.0 c.png\n")
    assert read_file_list(path).files == ["a.png", "c.png"]
    assert f"{path}: 1 lines without a path are skipped, such as line 2" in caplog.text


def test_a_trajectory_is_sorted_and_its_quaternions_are_normalised(tmp_path):
    # scalar last: (0, 0, 1, 1) is a quarter turn about z
    trajectory = read_trajectory(written(tmp_path, f"# t\n2 7 8 9 0 0 3 3\n1\t{IDENTITY}\n"))
    assert trajectory.stamps.tolist() == [1, 2]
    assert trajectory.pose(0).tolist() == np.eye(4).tolist()
    expected = [[0, -1, 0, 7], [1, 0, 0, 8], [0, 0, 1, 9], [0, 0, 0, 1]]
    np.testing.assert_allclose(trajectory.pose(1), expected, atol=1e-15)


def test_a_rewritten_trajectory_is_read_again(tmp_path):
    path = written(tmp_path, f"1 {IDENTITY}\n")
    assert read_trajectory(path) is read_trajectory(path)
    with pytest.raises(ValueError, match="read-only"):
        read_trajectory(path).stamps[0] = 5
    path.write_text(f"1 {IDENTITY}\n2 {IDENTITY}\n")
    assert len(read_trajectory(path).stamps) == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("5 0 0 0 0 0 0 0", "line 3: the quaternion 0 0 0 0 has no direction"),
        ("5 0 0 0 nan 0 0 1", "line 3: 'nan' is not a finite number"),
        ("5 -inf 0 0 0 0 0 1", "line 3: '-inf' is not a finite number"),
        ("inf 0 0 0 0 0 0 1", "line 3: the timestamp 'inf' is not a finite number"),
        ("5 0 0 0 0 0 1", "line 3: expected timestamp tx ty tz qx qy qz qw, got 7 fields"),
        ("5 0 0 0 0 0 0 1 9", "line 3: expected timestamp tx ty tz qx qy qz qw, got 9 fields"),
        ("5 0 0 zero 0 0 0 1", "line 3: 'zero' is not a finite number"),
        ("5", "line 3: expected timestamp tx ty tz qx qy qz qw, got 1 fields"),
    ],
)
def test_a_broken_pose_is_named_with_its_line(tmp_path, line, reason):
    path = written(tmp_path, f"# ground truth\n1 {IDENTITY}\n{line}\n")
    with pytest.raises(MediaReadError) as caught:
        read_trajectory(path)
    assert str(caught.value) == f"{path}: {reason}"


def test_a_short_quaternion_has_a_direction(tmp_path):
    assert read_trajectory(written(tmp_path, "1 0 0 0 0 0 0 1e-5\n")).pose(0).tolist() == np.eye(4).tolist()


@pytest.mark.parametrize("read", [read_file_list, read_trajectory])
def test_other_files_are_refused(tmp_path, read):
    with pytest.raises(MediaReadError, match=r"a\.txt: cannot be read \(No such file"):
        read(tmp_path / "a.txt")
    with pytest.raises(MediaReadError, match=r"a\.txt: (names no file|holds no pose)"):
        read(written(tmp_path, "# nothing\n"))
    with pytest.raises(MediaReadError, match=r"a\.txt: line 1: the timestamp 'time' is not a finite number"):
        read(written(tmp_path, "time file"))
    (tmp_path / "a.txt").write_bytes(b"\x89PNG\xff")
    with pytest.raises(MediaReadError, match=r"a\.txt: is not a text file"):
        read(tmp_path / "a.txt")


def test_a_list_of_bare_timestamps_names_no_file(tmp_path):
    with pytest.raises(MediaReadError, match="names no file"):
        read_file_list(written(tmp_path, "1.0\n2.0\n"))


def test_a_real_trajectory(sample_data, tmp_path, caplog):
    path = sample_data / "trajectories" / "tum" / "fr2_desk_groundtruth.txt"
    trajectory = read_trajectory(written(tmp_path, path.read_text()))
    assert len(trajectory.stamps) == 20956  # of 20957 lines, two have one timestamp
    assert "1 lines are skipped because a later line has the same timestamp, such as line 10862" in caplog.text
    assert (np.diff(trajectory.stamps) > 0).all()
    first = trajectory.pose(0)
    assert first[:3, 3].tolist() == [-0.1357, -1.4217, 1.4764]
    np.testing.assert_allclose(first[:3, :3] @ first[:3, :3].T, np.eye(3), atol=1e-15)  # from four decimals
    # Rodrigues' rotation by the quaternion of the line (x, y, z, w), normalised
    x, y, z, w = np.array([0.6453, -0.5498, 0.3363, -0.4101]) / np.linalg.norm([0.6453, -0.5498, 0.3363, -0.4101])
    np.testing.assert_allclose(first[2, :3], [2 * (x * z - y * w), 2 * (y * z + x * w), w**2 + z**2 - x**2 - y**2])
