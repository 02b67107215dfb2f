import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from reconstructed_videos import FOCAL, SIZE, plane_video

from omnistream.cameras import make_pose, matrix_from_quaternion
from omnistream.plots import depth as depth_plots
from omnistream.plots.camera_paths import align_paths, draw_paths
from omnistream.plots.depth import color_depth, draw_depth
from omnistream.plots.depth_video import write_depth_video
from omnistream.plots.fused_points import write_points
from omnistream.plots.point_file import VERTEX, PointFile, point_records
from omnistream.plots.reconstruction import depth_plot, draw_errors, error_title, headline, mean_errors, path_plot
from omnistream.plots.sheet import MUTED_COLOR, PREDICTION_COLOR, TRUTH_COLOR, fit, robust_scale

HEIGHT, WIDTH = SIZE


def read_ply(path):
    """Header lines and vertices, by code of its own."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    kinds = {"float": "<f4", "uchar": "u1"}
    fields = [line.split()[1:] for line in header.decode().splitlines() if line.startswith("property")]
    return header.decode().splitlines(), np.frombuffer(body, np.dtype([(name, kinds[kind]) for kind, name in fields]))


def steps_video():
    """Whole frames at depth 1, 2, 3, 4, 5, predicted exactly."""
    depth = torch.arange(1.0, 6)[:, None, None].expand(5, *SIZE).clone()
    return plane_video(depth=depth, true_depth=depth, confidence=None)


class TestDepth:
    def test_one_colour_scale_for_all_frames(self):
        video = steps_video()
        colors = color_depth(depth_plot(video))
        everything = np.percentile(video.true_depth.numpy(), [2, 98])
        assert (colors.depth_scale.low, colors.depth_scale.high) == pytest.approx(tuple(everything))
        firsts = [tuple(frame[0, 0]) for frame in colors.prediction]
        assert len(set(firsts)) == 5  # a scale per frame would paint them all alike
        assert firsts == [tuple(frame[0, 0]) for frame in colors.truth]
        tiles = [fit(frame, 144, smooth=False) for frame in colors.prediction]
        sheet, y = draw_depth(depth_plot(video)), 54 + depth_plots.LABEL_HEIGHT + 2 * (tiles[0].shape[0] + 4)
        for column, tile in enumerate(tiles):
            x = 90 + column * (tile.shape[1] + 4)
            assert np.array_equal(sheet[y : y + tile.shape[0], x : x + tile.shape[1]], tile)

    def test_a_scale_per_frame_would_be_seen(self, monkeypatch):
        """The bug that the test above is for, planted."""
        scale = robust_scale

        def per_frame(values, valid, colormap):
            return scale(values[-1], valid[-1], colormap)

        monkeypatch.setattr(depth_plots, "robust_scale", per_frame)
        firsts = [tuple(frame[0, 0]) for frame in color_depth(depth_plot(steps_video())).prediction]
        assert len(set(firsts)) < 5

    def test_truth_of_another_size_is_sampled_not_mixed(self):
        plot = depth_plot(plane_video(true_depth=plane_video().true_depth[:, :-1, :-1]))
        assert plot.truth.shape == plot.prediction.shape
        assert set(plot.truth.unique().tolist()) == {2.0, 4.0}
        holes = plane_video().true_depth.clone()
        holes[:, :6] = 0
        holes[:, 6:10] = torch.inf
        assert torch.equal(depth_plot(plane_video(true_depth=holes)).valid[0].any(1), torch.arange(HEIGHT) >= 5)

    def test_depth_of_a_pose_evaluation_is_aligned_for_the_plot(self):
        video = plane_video(error=1.5, frame_errors={"position": torch.ones(5)})
        plot = depth_plot(video)
        assert color_depth(plot).abs_rel < 1e-5
        assert plot.note == "not scored here; aligned by one scale"
        scored = depth_plot(video._replace(frame_errors={**video.frame_errors, "abs_rel": torch.ones(5)}))
        assert color_depth(scored).abs_rel == pytest.approx(1.5)
        assert color_depth(depth_plot(video._replace(frame_errors={}))).abs_rel == pytest.approx(1.5)

    def test_error_and_title(self):
        plot = depth_plot(plane_video(name="market_2", error=0.25))
        assert color_depth(plot).abs_rel == pytest.approx(0.25)
        assert plot.title == "market_2: Abs Rel 0.25 (mean over 4 frames)"
        assert plot.labels == ("frame 0", "frame 1", "frame 2", "frame 3", "frame 4")
        assert plot.unit == "m"

    def test_without_truth_there_are_no_rows_of_it(self):
        with_truth, without = depth_plot(plane_video()), depth_plot(plane_video(true_depth=None))
        assert not without.valid.any()
        row = 12 * 9 + 4
        assert draw_depth(with_truth).shape[0] - draw_depth(without).shape[0] == 2 * row
        assert color_depth(without).depth_scale.high == pytest.approx(4.4, rel=1e-3)
        assert depth_plot(plane_video(depth=None)) is None

    def test_titles_stay_on_the_sheet(self):
        sheet = draw_depth(depth_plot(plane_video(name="a_long_name_of_a_sequence_" * 4)), max_frames=1)
        assert (sheet[:40, -8:] == 255).all()

    def test_video_has_every_frame_and_one_scale(self, tmp_path):
        import av

        write_depth_video(depth_plot(steps_video()), tmp_path / "depth.mp4", fps=5)
        with av.open(str(tmp_path / "depth.mp4")) as container:
            frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
        assert len(frames) == 5
        height, width = frames[0].shape[:2]
        factor = height // HEIGHT
        assert width > 3 * WIDTH * factor
        colors = color_depth(depth_plot(steps_video())).prediction[:, 0, 0].astype(int)
        middle = np.stack([frame[height // 2, round(2.5 * WIDTH * factor)] for frame in frames])
        assert np.abs(middle - colors).max() < 30
        assert np.abs(np.diff(middle, axis=0)).max(axis=1).min() > 30


class TestPath:
    def test_is_drawn_where_it_is(self):
        plot = path_plot(plane_video())
        assert plot.aligned
        paths = align_paths(plot)
        assert paths.scale == 1
        assert paths.error == pytest.approx(0.1, rel=1e-5)  # a similarity would remove all of it
        assert torch.allclose(paths.prediction[:, 1], torch.full((5,), 0.1, dtype=torch.float64))

    def test_is_seen_from_the_first_true_camera(self):
        turn = make_pose(matrix_from_quaternion(torch.tensor([0.0, 0.6, 0.0, 0.8])), torch.tensor([1.0, 2.0, 3.0]))
        video = plane_video()
        turned = video._replace(
            camera_to_world=turn @ video.camera_to_world, true_camera_to_world=turn @ video.true_camera_to_world
        )
        assert torch.allclose(align_paths(path_plot(turned)).truth, align_paths(path_plot(video)).truth, atol=1e-5)
        assert torch.allclose(
            align_paths(path_plot(turned)).prediction, align_paths(path_plot(video)).prediction, atol=1e-5
        )

    def test_frames_without_a_pose_are_left_out_and_counted(self):
        video = plane_video()
        truth, found = video.true_camera_to_world.clone(), video.camera_to_world.clone()
        truth[0], found[2, 0, 3] = -torch.inf, torch.nan
        plot = path_plot(video._replace(camera_to_world=found, true_camera_to_world=truth))
        assert len(plot.truth) == len(plot.prediction) == 3
        assert plot.title.endswith("; 2 frames without a pose")
        assert path_plot(video._replace(true_camera_to_world=None)) is None
        assert path_plot(video._replace(true_camera_to_world=torch.full((5, 4, 4), torch.nan))) is None

    def test_both_paths_are_drawn_in_two_views(self):
        sheet = draw_paths(path_plot(plane_video(num_frames=60))).astype(int)
        for color in (TRUTH_COLOR, PREDICTION_COLOR):
            seen = (np.abs(sheet - color).max(axis=-1) < 12).nonzero()[1]
            assert (seen < sheet.shape[1] // 2).sum() > 20
            assert (seen > sheet.shape[1] // 2).sum() > 20


class TestErrors:
    def test_means_leave_out_frames_without_truth(self):
        assert mean_errors(plane_video(error=0.3)) == pytest.approx({"abs_rel": 0.3, "position": 0.1})

    def test_headlines_name_sequence_metrics_and_units(self):
        errors = {"abs_rel": torch.full((5,), torch.nan), "rotation": torch.full((5,), 1.5), "gap": torch.ones(5)}
        video = plane_video("chess")
        assert headline(video, "m") == "chess: Abs Rel 0.1, position error 0.1 m (mean over 5 frames)"
        assert headline(video, "m", "pose") == "chess: position error 0.1 m (mean over 5 frames)"
        assert headline(video._replace(frame_errors=errors), "m") == (
            "chess: Abs Rel unknown, rotation error 1.5°, gap 1 (mean over 5 frames)"
        )
        assert headline(video._replace(frame_errors={}), "m") == "chess"
        assert error_title("position", "mm") == "position error [mm]"
        assert error_title("rotation", "mm") == "rotation error [°]"
        assert error_title("my_error", "m") == "my error"

    def test_every_error_has_a_panel_with_its_curve_and_mean(self):
        video = plane_video(frame_errors={"abs_rel": torch.tensor([0.0, 0, 0, 0, 1.0])})
        one = draw_errors(video).astype(int)
        two = draw_errors(video._replace(frame_errors={"abs_rel": torch.ones(5), "position": torch.ones(5)}))
        assert two.shape[0] - one.shape[0] == 194
        curve = (np.abs(one - PREDICTION_COLOR).max(axis=-1) < 12).nonzero()
        left, right = curve[0][curve[1] < 300], curve[0][curve[1] > 640]
        assert left.min() > 208  # zero, at the bottom
        assert right.min() < 98  # one, at the top
        muted = [int(MUTED_COLOR[i : i + 2], 16) for i in (1, 3, 5)]
        dashes = (np.abs(one - muted).max(axis=-1) < 40)[:, 100:700].sum(axis=1)
        assert 178 < dashes[80:223].argmax() + 80 < 208  # the mean, a fifth of the height

    def test_the_worst_frame_is_named(self, monkeypatch):
        titles = []
        monkeypatch.setattr(Axes, "set_title", lambda self, text, **_: titles.append(text))
        values = torch.tensor([0.2, 0.6, torch.nan, 0.4, 0.3])
        draw_errors(plane_video(frame_errors={"abs_rel": values, "delta1": values}))
        assert titles == [
            "Abs Rel: mean 0.375, worst 0.6 at frame 1; 1 frames have none",
            "δ₁: mean 0.375, worst 0.2 at frame 0; 1 frames have none",
        ]

    def test_errors_that_are_not_finite_or_absent(self):
        errors = torch.tensor([0.1, torch.nan, torch.inf, 0.3, 0.2])
        assert draw_errors(plane_video(frame_errors={"abs_rel": errors})).size
        assert draw_errors(plane_video(frame_errors={"abs_rel": torch.full((5,), torch.nan)})).size
        with pytest.raises(ValueError, match="plane: there are no errors to draw"):
            draw_errors(plane_video(frame_errors={}))


class TestPoints:
    def test_points_of_a_plane_lie_on_it(self, tmp_path):
        video = plane_video(error=0.0, confidence=None)
        count = write_points(video, tmp_path / "points.ply", stride=1)
        header, points = read_ply(tmp_path / "points.ply")
        assert header[:2] == ["ply", "format binary_little_endian 1.0"]
        assert f"element vertex {count}" in header
        assert [line.split()[1:] for line in header if line.startswith("property")] == [
            *(["float", name] for name in "xyz"), *(["uchar", name] for name in ("red", "green", "blue")),
            ["float", "confidence"],
        ]  # fmt: skip
        assert len(points) == count == 5 * HEIGHT * WIDTH
        frame, row, column = 3, 2, 12
        one = points[frame * HEIGHT * WIDTH + row * WIDTH + column]
        expected = (1.5 + 4 * (column + 0.5 - WIDTH / 2) / FOCAL, 0.1 + 4 * (row + 0.5 - HEIGHT / 2) / FOCAL, 4.0)
        assert [one[name] for name in "xyz"] == pytest.approx(expected, abs=1e-5)
        assert [one[name] for name in ("red", "green", "blue")] == video.images[frame, :, row, column].tolist()
        assert set(points["z"]) == {2.0, 4.0}

    def test_the_least_certain_and_the_impossible_are_left_out(self, tmp_path):
        write_points(plane_video(), tmp_path / "points.ply", stride=1, confidence=0.5)
        assert min(read_ply(tmp_path / "points.ply")[1]["confidence"]) > WIDTH / 2
        video = plane_video(confidence=None)
        depth, poses = video.depth.clone(), video.camera_to_world.clone()
        depth[0], depth[1], poses[2] = 0.0, torch.nan, torch.nan
        count = write_points(video._replace(depth=depth, camera_to_world=poses), tmp_path / "points.ply", stride=2)
        assert count == 2 * HEIGHT * WIDTH // 4

    def test_poses_are_those_of_the_kept_frames(self, tmp_path):
        video = plane_video(num_frames=5, error=0.0, confidence=None)
        some = [1, 4]
        parts = {name: getattr(video, name)[some] for name in ("images", "depth", "true_depth", "intrinsics")}
        write_points(video._replace(positions=some, **parts), tmp_path / "points.ply", stride=1)
        points = read_ply(tmp_path / "points.ply")[1]
        centre = (WIDTH + 1) / 2 - WIDTH / 2  # of the pixel right of the middle
        assert points["x"][WIDTH // 2] == pytest.approx(0.5 + 4 * centre / FOCAL, abs=1e-5)
        assert points["x"][HEIGHT * WIDTH + WIDTH // 2] == pytest.approx(2.0 + 4 * centre / FOCAL, abs=1e-5)

    def test_needs_depth_and_cameras(self, tmp_path):
        with pytest.raises(ValueError, match="plane: a point cloud needs predicted depth, intrinsics and poses"):
            write_points(plane_video(intrinsics=None), tmp_path / "points.ply")

    def test_a_file_never_exceeds_its_limit(self, tmp_path):
        file = PointFile(tmp_path / "points.ply", max_points=100)
        for frame in range(50):
            xyz = np.stack([np.arange(30), np.full(30, frame), np.zeros(30)], axis=1)
            file.add(point_records(xyz.astype(np.float32), np.zeros((30, 3), np.uint8), np.ones(30, np.float32)), frame)
            assert file.num_points <= 100
        file.close()
        points = read_ply(tmp_path / "points.ply")[1]
        assert points.dtype == VERTEX
        assert 50 <= len(points) == file.num_points <= 100
        assert np.histogram(points["y"], bins=5, range=(0, 50))[0].min() > 5
