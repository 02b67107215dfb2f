import torch

from omnistream.backbone import OmniStream
from omnistream.data.batch import TextTarget, ViewBatch
from omnistream.plots import draw
from omnistream.tasks.captioning.metrics import CaptionSample
from omnistream.tasks.captioning.plots import captioning_plots
from omnistream.tasks.geometry.plots import geometry_plots
from omnistream.tasks.geometry.prediction import GeometryPrediction
from omnistream.tasks.geometry.targets import GeometryTargets
from omnistream.tasks.plots import CameraPlot, DepthPlot
from omnistream.tasks.ssl.device_views import DistortionConfig
from omnistream.tasks.ssl.plots import ssl_plots


def test_geometry_shows_depth_and_the_frames_with_a_known_pose():
    depth, rays = torch.rand(2, 3, 8, 8) + 1, torch.zeros(2, 3, 8, 8, 6)
    pose = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1.0]).repeat(2, 3, 1)
    pose[..., 0] = torch.tensor([0.0, 1.0, 3.0])
    known = torch.tensor([[True, False, True], [True, False, False]])
    prediction = GeometryPrediction(
        depth=depth, depth_confidence=depth, rays=rays, ray_confidence=depth, pose=pose + 0.0
    )
    targets = GeometryTargets(
        depth=depth,
        valid=depth > 1.5,
        points=rays[..., :3],
        rays=rays,
        ray_valid=known,
        pose=pose,
        pose_valid=known,
        scale=torch.ones(2),
    )
    found = geometry_plots(torch.zeros(2, 3, 3, 8, 8, dtype=torch.uint8), prediction, targets, 5)
    assert list(found) == ["depth/0", "camera/0", "depth/1"]
    assert isinstance(found["depth/1"], DepthPlot)
    assert torch.equal(found["depth/1"].truth, depth[1])
    assert isinstance(found["camera/0"], CameraPlot)
    assert found["camera/0"].truth[:, 0, 3].tolist() == [0.0, 3.0]
    assert all(draw(plot).size for plot in found.values())


def test_captioning_shows_the_boxes_of_both_answers():
    answer = "<|box_start|>(100,200),(300,400)<|box_end|>"
    sample = CaptionSample(
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TextTarget("caption", "x"), "Find it.", answer, answer + answer
    )
    item = captioning_plots([sample, sample], 1)["answers"].items[0]
    assert len(item.truth_boxes) == 1
    assert len(item.generated_boxes) == 2
    assert abs(item.truth_boxes[0][3] - 0.4) < 1e-3
    assert captioning_plots([], 2) == {}


def test_ssl_shows_the_views_and_the_features_of_the_first_sample():
    backbone = OmniStream("vit_nano").eval()
    batch = ViewBatch(
        global_crops=torch.randint(0, 256, (2, 2, 3, 3, 16, 16), dtype=torch.uint8),
        local_crops=torch.zeros(2, 0, 3, 3, 8, 8, dtype=torch.uint8),
        masks=torch.rand(2, 2, 3, 2, 2) < 0.5,
        seed=torch.arange(2),
        name=["a", "b"],
    )
    with torch.no_grad():
        found = ssl_plots(backbone, batch, 8, DistortionConfig())
        expected = backbone(backbone.normalize(batch.global_crops[:1, 0])).last[0]
    assert torch.equal(found["views"].masks, batch.masks[0])
    assert found["views"].local_crops is None
    assert torch.equal(found["features"].features, expected)
    assert all(draw(plot).size for plot in found.values())
