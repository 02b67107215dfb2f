import math

import pytest
import stream_length
import torch
from lightning import seed_everything
from stream_length import CONSTANT, REFERENCE, STILL

from omnistream.backbone import OmniStream
from omnistream.tasks.geometry import GeometryModule
from omnistream.trained import TrainedModel

LENGTHS = [4, 8]


def path(num_frames):
    """A camera on a curve."""
    poses = torch.eye(4).repeat(num_frames, 1, 1)
    t = torch.arange(num_frames) / 3
    poses[:, :3, 3] = torch.stack([t.sin(), t.cos(), t], dim=1)
    return poses


def tiny_model():
    seed_everything(0, verbose=False)
    backbone = OmniStream("vit_nano")
    geometry = GeometryModule(features=8, out_channels=(8, 8, 8, 8), hidden=8)
    geometry.build(backbone)
    return TrainedModel(backbone, geometry).eval()


def test_every_length_is_aligned_for_itself():
    truth = torch.rand(8, 6, 6) + 1
    depth = truth.clone()
    depth[4:] *= 3  # the second half has another scale
    errors = stream_length.prefix_errors(0.5 * depth, path(8), truth, path(8), LENGTHS)
    assert errors["depth"][0] < 1e-6
    assert errors["depth"][1] > 0.1
    assert max(errors["pose"]) < 1e-6
    still = stream_length.prefix_errors(depth, path(8), truth, torch.eye(4).repeat(8, 1, 1), LENGTHS)
    assert all(map(math.isnan, still["pose"]))


def test_drift_is_of_the_frames_between_the_lengths():
    reference = torch.ones(8, 4)
    features = reference.clone()
    features[4:] *= 2
    found = stream_length.drift(features, reference, LENGTHS)
    assert found["change"] == pytest.approx([0.0, 1.0])
    assert found["cosine"] == pytest.approx([1.0, 1.0])
    features[:4] *= -1
    assert stream_length.drift(features, reference, LENGTHS)["cosine"] == pytest.approx([-1.0, 1.0])


def test_sessions_differ_where_they_should():
    model, images = tiny_model(), torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8)
    found = {kind: stream_length.stream(model, one, images) for kind, one in stream_length.sessions([2]).items()}
    assert list(found) == [REFERENCE, "whole past, int8", "window 2, float32", "window 2, int8"]
    whole, window = found[REFERENCE], found["window 2, float32"]
    assert whole.depth.shape == (8, 32, 32)
    assert torch.allclose(window.features[:3], whole.features[:3], atol=1e-5)  # a window of 2 and a sink see them all
    assert not torch.allclose(window.features[5:], whole.features[5:], atol=1e-5)
    clip = model.backbone(model.normalize(images[None]), camera_token=True, aspect_ratio=torch.ones(1))
    assert torch.allclose(whole.features, clip.last[0].flatten(1), atol=1e-4)


def results(whole, other, constant=(0.5, 0.5)):
    """Errors and drift of two videos at two lengths."""
    values = {kind: torch.tensor(rows) for kind, rows in {
        REFERENCE: whole, "window 2": other, CONSTANT: [constant, constant],
    }.items()}  # fmt: skip
    poses = {STILL if kind == CONSTANT else kind: one for kind, one in values.items()}
    drifts = {"cosine": {"window 2": torch.ones(2, 2)}, "change": {"window 2": torch.full((2, 2), 0.01)}}
    return {"depth": values, "pose": poses}, drifts


def test_what_came_out_is_said():
    errors, drifts = results([[0.1, 0.2], [0.1, 0.4]], [[0.1, 0.4], [0.1, 0.61]])
    lines = "\n".join(stream_length.findings(errors, drifts, LENGTHS))
    assert "Abs Rel with the whole past goes from 0.100 at 4 frames to 0.300 at 8 (3.00 times)" in lines
    assert "window 2: +0.2050 ± 0.0050, worse than the whole past at 8 frames" in lines
    assert "At 8 frames: -0.2000 ± 0.1000, no clear difference from the best constant depth" in lines
    assert "no session changes the features by more than 1.0 %" in lines.lower()
    errors, drifts = results([[0.1, 0.2], [0.1, 0.4]], [[0.1, 0.1], [0.1, 0.29]], constant=(0.1, 0.1))
    drifts["change"]["window 2"] += 1
    lines = "\n".join(stream_length.findings(errors, drifts, LENGTHS))
    assert "window 2: -0.1050 ± 0.0050, better than the whole past" in lines
    assert "no session changes" not in lines.lower()
    one = {metric: {kind: values[:1] for kind, values in kinds.items()} for metric, kinds in errors.items()}
    assert "one video, so nothing can be said" in "\n".join(stream_length.findings(one, drifts, LENGTHS))


def test_tables_and_plot():
    errors, drifts = results([[0.1, 0.2], [0.1, 0.4]], [[0.1, 0.4], [0.1, 0.6]])
    table = stream_length.error_table(errors["depth"], LENGTHS)
    assert table[0] == "|  | first 4 | first 8 |"
    assert table[2] == f"| {REFERENCE} | 0.100 ± 0.000 | 0.300 ± 0.100 |"
    assert stream_length.drift_table(drifts, LENGTHS)[0] == "| cosine, relative change | frames 1-4 | frames 5-8 |"
    assert stream_length.drift_table(drifts, LENGTHS)[2] == "| window 2 | 1.0000, 1.00 % | 1.0000, 1.00 % |"
    image = stream_length.draw(errors, drifts, LENGTHS)
    assert image.shape[1] > 1000
    assert image.std() > 10


def test_runs_small(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stream_length.omnistream, "load", lambda checkpoint, heads: tiny_model())
    arguments = ["x", "--videos", "2", "--lengths", "6", "3", "--windows", "2", "--size", "32", "--write"]
    stream_length.main([*arguments, "--out", str(tmp_path)])
    text = (tmp_path / "stream_length.md").read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    assert "2 videos of 6 frames of 32x32 pixels" in text
    assert "|  | first 3 | first 6 |" in text
    assert text.count("| window 2, int8 |") == 3
    assert (tmp_path / "stream_length.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit):
        stream_length.main(["x", "--lengths", "2"])
