import subprocess
import sys

import numpy as np
import pytest
import torch

from omnistream.boxes import Box
from omnistream.plots import draw
from omnistream.plots.camera_paths import align_paths
from omnistream.plots.captions import draw_boxes
from omnistream.plots.depth import ERROR_SCALE, color_depth, draw_depth
from omnistream.plots.features import pca_colors
from omnistream.plots.sheet import (
    INVALID,
    PREDICTION_COLOR,
    TRUTH_COLOR,
    Scale,
    Sheet,
    fit,
    robust_scale,
    spread,
    text_width,
    to_frames,
    wrap,
)
from omnistream.plots.views import MASK_COLOR, overlay_mask
from omnistream.tasks.plots import CameraPlot, CaptionItem, CaptionPlot, DepthPlot, FeaturesPlot, ViewsPlot


def contains(sheet, tile):
    """Whether `tile` lies somewhere in `sheet`, pixel for pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(sheet, tile.shape)[:, :, 0]
    corners = np.argwhere((windows[:, :, 0, 0] == tile[0, 0]).all(-1) & (windows[:, :, -1, -1] == tile[-1, -1]).all(-1))
    return any(np.array_equal(windows[y, x], tile) for y, x in corners)


class TestSheet:
    def test_frames_are_the_same_from_uint8_and_float(self, images):
        assert np.array_equal(to_frames(images), to_frames(images.float() / 255))
        assert np.array_equal(to_frames(images)[2, 7, 9], images[2, :, 7, 9].numpy())

    def test_other_types_are_refused(self, images):
        with pytest.raises(ValueError, match="uint8 or floating-point"):
            to_frames(images.long())

    def test_fit_enlarges_by_a_whole_number(self, images):
        tile = to_frames(images)[0]
        large = fit(tile, 130)
        assert large.shape == (128, 128, 3)
        assert np.array_equal(large[::4, ::4], tile)
        assert np.array_equal(large[3::4, 3::4], tile)

    def test_fit_reduces_to_the_size(self):
        assert fit(np.zeros((100, 400, 3), np.uint8), 200).shape == (50, 200, 3)

    def test_spread_has_both_ends(self):
        assert spread(16, 4) == [0, 5, 10, 15]
        assert spread(3, 8) == [0, 1, 2]

    def test_pasted_pixels_are_exact(self, images):
        tile = to_frames(images)[0]
        sheet = Sheet(100, 80)
        sheet.write("x", 0, 0)
        sheet.paste(tile, 41, 17)
        pixels = sheet.pixels()
        assert pixels.shape == (80, 100, 3)
        assert np.array_equal(pixels[17:49, 41:73], tile)

    def test_text_is_drawn_where_it_should(self):
        sheet = Sheet(200, 100)
        sheet.write("$5 and_1", 100, 50)
        dark = np.argwhere(sheet.pixels().min(axis=-1) < 128)
        assert dark[:, 1].min() >= 99
        assert 48 <= dark[:, 0].min() <= 56
        assert dark[:, 0].max() < 70

    def test_no_figure_is_registered_globally(self):
        import matplotlib.pyplot as plt

        before = plt.get_fignums()
        draw(CameraPlot(truth=torch.eye(4)[None], prediction=torch.eye(4)[None]))
        assert plt.get_fignums() == before

    def test_import_omnistream_stays_light(self):
        code = "import sys, omnistream; sys.exit(any(m in sys.modules for m in ('torch', 'matplotlib', 'lightning')))"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_scale_clips_and_greys(self):
        colors = Scale(0.0, 1.0, "viridis").colors(torch.tensor([[0.0, -5.0, 1.0, 9.0, torch.nan]]))
        assert np.array_equal(colors[0, 0], colors[0, 1])
        assert np.array_equal(colors[0, 2], colors[0, 3])
        assert tuple(colors[0, 4]) == INVALID

    def test_bar_has_high_on_top(self):
        scale = Scale(2.0, 3.0, "viridis")
        assert np.array_equal(scale.bar(20)[0, 0], scale.colors(torch.tensor([[3.0]]))[0, 0])
        assert np.array_equal(scale.bar(20)[-1, 0], scale.colors(torch.tensor([[2.0]]))[0, 0])

    def test_robust_scale_ignores_outliers_and_invalid(self):
        values = torch.linspace(0, 100, 1001)
        values[0] = 1e6
        valid = torch.ones_like(values, dtype=torch.bool)
        valid[0] = False
        scale = robust_scale(values, valid, "viridis")
        assert scale.low == pytest.approx(2.098, abs=1e-3)
        assert scale.high == pytest.approx(98.002, abs=1e-3)

    def test_robust_scale_of_a_constant_and_of_nothing(self):
        ones = torch.ones(4)
        scale = robust_scale(ones, torch.ones(4, dtype=torch.bool), "viridis")
        assert scale.low < 1 < scale.high
        nothing = robust_scale(ones, torch.zeros(4, dtype=torch.bool), "viridis")
        assert (nothing.low, nothing.high) == (0, 1)

    def test_wrap_breaks_at_words_and_inside_long_ones(self):
        assert wrap("a b\nc", 100, 3) == "a b\nc"
        assert wrap("", 100, 3) == ""
        broken = wrap("some words here " * 10 + "W" * 60, 150, 99)
        assert broken.replace("\n", "").replace(" ", "") == "somewordshere" * 10 + "W" * 60
        assert all(text_width(line) <= 150 for line in broken.split("\n"))
        assert all(line.split()[0] in ("some", "words", "here") for line in broken.split("\n")[:8])

    def test_wrap_cuts_with_an_ellipsis(self):
        lines = wrap("some words here " * 10, 150, 2).split("\n")
        assert len(lines) == 2
        assert lines[1].endswith(" …")
        assert text_width(lines[1]) <= 150


class TestViews:
    def test_mask_tints_exactly_its_patches(self):
        image = np.full((4, 6, 3), 100, np.uint8)
        mask = np.array([[True, False, False], [False, False, True]])
        tinted = overlay_mask(image, mask, strength=0.5)
        expected = np.round(50 + 0.5 * np.array(MASK_COLOR)).astype(np.uint8)
        assert np.array_equal(tinted[:2, :2], np.broadcast_to(expected, (2, 2, 3)))
        assert np.array_equal(tinted[2:, 4:], np.broadcast_to(expected, (2, 2, 3)))
        assert (tinted[:2, 2:] == 100).all()
        assert (tinted[2:, :4] == 100).all()

    def test_patches_must_tile_the_image(self):
        with pytest.raises(ValueError, match="does not tile"):
            overlay_mask(np.zeros((10, 10, 3), np.uint8), np.zeros((3, 3), bool))

    @pytest.mark.parametrize("frames", [1, 5])
    def test_shows_crops_with_masks_and_local_crops(self, images, frames):
        clip = images[:frames]
        masks = torch.zeros(2, frames, 4, 4, dtype=torch.bool)
        masks[0, :, :2] = True
        local = clip[None, :, :, :16, :16].repeat(3, 1, 1, 1, 1)
        plot = ViewsPlot(global_crops=torch.stack([clip, clip.flip(-1)]), local_crops=local, masks=masks)
        sheet = draw(plot)
        first = to_frames(clip)[-1]
        assert contains(sheet, fit(overlay_mask(first, masks[0, -1].numpy()), 160))
        assert contains(sheet, fit(to_frames(clip.flip(-1))[-1], 160))
        assert contains(sheet, fit(to_frames(local)[0, -1], 80))


class TestFeatures:
    def test_equal_features_have_equal_colours_in_every_frame(self):
        features = torch.randn(3, 4, 4, 16)
        features[2] = features[0]
        features[1, 1, 2] = features[0, 3, 0]
        colors, _ = pca_colors(features)
        assert torch.equal(colors[2], colors[0])
        assert torch.equal(colors[1, 1, 2], colors[0, 3, 0])

    def test_is_the_pca_of_the_whole_clip(self):
        features = torch.randn(3, 4, 4, 16, dtype=torch.float64)
        colors, share = pca_colors(features)
        rows = features.reshape(-1, 16) - features.reshape(-1, 16).mean(0)
        singular = torch.linalg.svdvals(rows).square()
        assert share == pytest.approx(float(singular[:3].sum() / singular.sum()), rel=1e-9)
        scores = rows @ torch.linalg.svd(rows).Vh[:3].T
        inside = (colors.reshape(-1, 3) > 0.01) & (colors.reshape(-1, 3) < 0.99)
        for axis in range(3):
            pair = torch.stack([colors.reshape(-1, 3)[:, axis].double(), scores[:, axis]])[:, inside[:, axis]]
            assert abs(float(torch.corrcoef(pair)[0, 1])) > 0.999999

    def test_a_brightness_outlier_does_not_wash_out_the_rest(self):
        features = torch.rand(2, 16, 16, 8)
        plain, _ = pca_colors(features)
        assert plain.std() > 0.2
        features[0, 0, 0] = 1000.0
        spoiled, _ = pca_colors(features)
        assert spoiled[..., 1:].std() > 0.2

    def test_constant_features(self):
        colors, share = pca_colors(torch.ones(2, 3, 3, 4))
        assert colors.isfinite().all()
        assert share == 0

    def test_bad_features_are_refused(self):
        with pytest.raises(ValueError, match="NaN"):
            pca_colors(torch.full((1, 2, 2, 4), torch.nan))
        with pytest.raises(ValueError, match="at least 3 channels"):
            pca_colors(torch.ones(1, 2, 2, 2))

    def test_plot_has_frames_and_features(self, images):
        features = torch.randn(5, 4, 4, 8)
        sheet = draw(FeaturesPlot(images=images, features=features))
        colors = (pca_colors(features)[0] * 255).round().byte().numpy()
        assert contains(sheet, fit(to_frames(images)[4], 144))
        assert contains(sheet, np.kron(colors[4], np.ones((32, 32, 1), np.uint8)))


class TestDepth:
    def test_truth_and_prediction_share_the_scale(self, images, depth):
        truth, valid = depth
        colors = color_depth(DepthPlot(images=images, truth=truth, valid=valid, prediction=truth))
        assert np.array_equal(colors.truth[valid.numpy()], colors.prediction[valid.numpy()])
        shifted = truth.roll(3, dims=1)  # equal numbers at other places still have equal colours
        colors = color_depth(DepthPlot(images=images, truth=truth, valid=valid, prediction=shifted))
        assert np.array_equal(colors.truth[:, 20], colors.prediction[:, 23])
        assert not np.array_equal(colors.truth[:, 20], colors.prediction[:, 20])

    def test_scale_is_of_the_truth_alone_and_of_the_whole_clip(self, images, depth):
        truth, valid = depth
        truth = truth * torch.arange(1, 6)[:, None, None]
        colors = color_depth(DepthPlot(images=images, truth=truth, valid=valid, prediction=truth * 100))
        low, high = np.percentile(truth[valid].numpy(), [2, 98])
        assert colors.depth_scale.low == pytest.approx(low, rel=1e-6)
        assert colors.depth_scale.high == pytest.approx(high, rel=1e-6)

    def test_invalid_pixels_are_grey_and_do_not_count(self, images, depth):
        truth, valid = depth
        prediction = torch.where(valid, truth * 1.1, 1000.0)
        colors = color_depth(DepthPlot(images=images, truth=truth * valid, valid=valid, prediction=prediction))
        assert (colors.truth[~valid.numpy()] == INVALID).all()
        assert (colors.error[~valid.numpy()] == INVALID).all()
        assert not (colors.prediction[~valid.numpy()] == INVALID).all(axis=-1).any()
        assert colors.abs_rel == pytest.approx(0.1, rel=1e-5)

    def test_relative_error_and_its_colours(self, images, depth):
        truth, valid = depth
        colors = color_depth(DepthPlot(images=images, truth=truth, valid=valid, prediction=truth * 0.75))
        expected = ERROR_SCALE.colors(torch.tensor([[0.25]]))[0, 0]
        assert np.abs(colors.error[valid.numpy()].astype(int) - expected).max() <= 2

    def test_no_valid_pixel(self, images, depth):
        truth, valid = depth
        plot = DepthPlot(images=images, truth=truth, valid=torch.zeros_like(valid), prediction=truth)
        assert np.isnan(color_depth(plot).abs_rel)
        assert draw(plot).size

    def test_plot_has_all_rows_in_order(self, images, depth):
        truth, valid = depth
        plot = DepthPlot(
            images=images, truth=truth, valid=valid, prediction=truth + 0.2, confidence=truth + 1, unit="m"
        )
        colors, sheet = color_depth(plot), draw_depth(plot)
        rows = [to_frames(images), colors.truth, colors.prediction, colors.error, colors.confidence]
        height, width = 128 + 4, 90
        for index, row in enumerate(rows):
            y = 54 + index * height
            assert np.array_equal(sheet[y : y + 128, width : width + 128], fit(row[0], 144, smooth=False)), index
        assert contains(sheet, colors.depth_scale.bar(2 * height - 4))
        without = draw_depth(DepthPlot(images=images, truth=truth, valid=valid, prediction=truth))
        assert without.shape[0] == sheet.shape[0] - height


class TestPaths:
    @staticmethod
    def path(count=12):
        angle = torch.linspace(0, 2, count, dtype=torch.float64)
        poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
        poses[:, 0, 0] = poses[:, 2, 2] = angle.cos()
        poses[:, 0, 2], poses[:, 2, 0] = angle.sin(), -angle.sin()
        poses[:, :3, 3] = torch.stack([2 * angle.sin(), 0.3 * (2 * angle).sin(), 1 - angle.cos()], dim=-1)
        return poses

    def test_a_similar_path_lies_on_the_truth(self):
        truth = self.path()
        rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
        rotation = rotation * torch.linalg.det(rotation).sign()
        prediction = truth.clone()
        prediction[:, :3, :3] = rotation @ truth[:, :3, :3]
        prediction[:, :3, 3] = 0.25 * truth[:, :3, 3] @ rotation.T + torch.tensor([3.0, -1, 2])
        paths = align_paths(CameraPlot(truth=truth, prediction=prediction))
        assert paths.scale == pytest.approx(4, rel=1e-9)
        assert paths.error < 1e-9
        assert torch.allclose(paths.prediction_axis, paths.truth_axis)
        assert paths.truth[0].abs().max() < 1e-12
        assert paths.truth_axis[0].allclose(torch.tensor([0, 0, 1], dtype=torch.float64))
        assert not paths.straight

    def test_still_and_straight(self):
        truth = self.path()
        still = align_paths(CameraPlot(truth=truth, prediction=truth[:1].expand(12, 4, 4)))
        assert np.isnan(still.scale)
        centres = still.truth - still.truth.mean(dim=0)
        assert still.error == pytest.approx(float(centres.square().sum(-1).mean().sqrt()))
        truth[:, :2, 3] = 0
        assert align_paths(CameraPlot(truth=truth, prediction=truth)).straight

    @pytest.mark.parametrize("frames", [1, 12])
    def test_draws_both_colours(self, frames):
        truth = self.path()[:frames].float()
        prediction = truth.clone()
        prediction[:, :3, 3] += 0.05 * torch.randn(frames, 3)
        sheet = draw(CameraPlot(truth=truth, prediction=prediction, unit="m")).astype(int)
        for color in (TRUTH_COLOR, PREDICTION_COLOR):
            assert (np.abs(sheet - color).max(axis=-1) < 12).sum() > 20


class TestCaptions:
    def test_box_outline_is_where_it_should_be(self):
        image = np.zeros((100, 200, 3), np.uint8)
        drawn = draw_boxes(image, [Box(0.25, 0.1, 0.5, 0.9)], (255, 0, 0), thickness=2)
        red = drawn[..., 0] == 255
        assert red[10:90, 50:52].all()
        assert red[10:90, 98:100].all()
        assert red[10:12, 50:100].all()
        assert red[88:90, 50:100].all()
        assert red.sum() == 80 * 50 - 76 * 46
        assert not image.any()

    @pytest.mark.parametrize("box", [(-1.0, -1.0, 2.0, 2.0), (0.9, 0.9, 0.1, 0.1), (1.0, 1.0, 1.0, 1.0)])
    def test_odd_boxes_stay_in_the_image(self, box):
        drawn = draw_boxes(np.zeros((20, 20, 3), np.uint8), [Box(*box)], (255, 0, 0))
        assert drawn.shape == (20, 20, 3)
        assert drawn.any()

    def test_plot_shows_every_sample_with_boxes_in_their_colours(self, images):
        items = (
            CaptionItem(images=images[:1], truth="a <b>cup</b> for $5", generated="", instruction="Describe."),
            CaptionItem(
                images=images,
                truth="cup",
                generated="pot",
                truth_boxes=(Box(0.1, 0.1, 0.6, 0.6),),
                generated_boxes=(Box(0.3, 0.3, 0.9, 0.9),),
            ),
        )
        sheet = draw(CaptionPlot(items=items))
        assert contains(sheet, fit(to_frames(images)[0], 192))
        boxed = draw_boxes(fit(to_frames(images)[4], 192), items[1].truth_boxes, TRUTH_COLOR)
        assert contains(sheet, draw_boxes(boxed, items[1].generated_boxes, PREDICTION_COLOR))

    def test_text_that_cannot_be_printed_is_shown_as_dots(self, images):
        def plot(text):
            return draw(CaptionPlot(items=(CaptionItem(images=images, truth="cup", generated=text),)))

        assert np.array_equal(plot("a\x00\x07b"), plot("a··b"))
        assert np.array_equal(plot("  \n "), plot("(nothing)"))

    def test_text_stays_on_the_sheet(self, images):
        item = CaptionItem(images=images, truth="WWWW " * 400, generated="W" * 400)
        sheet = draw(CaptionPlot(items=(item,)))
        assert (sheet[:, -4:] == 255).all()
        assert (sheet[-4:] == 255).all()

    def test_empty_is_refused(self):
        with pytest.raises(ValueError, match="at least one item"):
            CaptionPlot(items=())


@pytest.mark.usefixtures("no_type_checks")
def test_other_things_are_no_plot():
    with pytest.raises(TypeError, match=r"draw: expected a plot of omnistream.tasks.plots, got str"):
        draw("plot")
