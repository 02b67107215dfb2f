from dataclasses import replace

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from omnistream.backbone import create_model
from omnistream.cameras import relative_to_first
from omnistream.data.batch import SceneClip
from omnistream.data.photometric import PhotometricConfig
from omnistream.metrics import abs_rel, constant_abs_rel
from omnistream.tasks.geometry import GeometryLossConfig, GeometryModule
from omnistream.tasks.optimization import OptimizerConfig, build_optimizer

SMALL = dict(features=16, out_channels=(8, 12, 16, 16), hidden=8)


@pytest.fixture
def backbone():
    return create_model("vit_nano")


def built(backbone, **options):
    module = GeometryModule(**(SMALL | options))
    module.build(backbone)
    return module


def test_predictions(backbone, make_scene_clip):
    module, clip = built(backbone), make_scene_clip(size=(16, 24))
    prediction = module.predict(backbone, clip.images)
    assert prediction.depth.shape == prediction.depth_confidence.shape == (2, 3, 16, 24)
    assert prediction.rays.shape == (2, 3, 16, 24, 6)
    assert prediction.pose.shape == (2, 3, 9)
    assert prediction.points.shape == (2, 3, 16, 24, 3)
    assert not prediction.depth.requires_grad
    rebuilt = prediction.rays[..., :3] + prediction.depth[..., None] * prediction.rays[..., 3:]
    torch.testing.assert_close(prediction.points, rebuilt)


def test_stream_equals_clip(backbone, make_scene_clip):
    """Read frame by frame from a session, the predictions are those of the whole clip."""
    module, clip = built(backbone).eval(), make_scene_clip(frames=4)
    backbone.eval()
    whole = module.predict(backbone, clip.images)
    aspect = torch.full((2,), 16 / 24)
    session = backbone.stream(layers=module.head_layers, camera_token=True, aspect_ratio=aspect)
    with torch.no_grad():
        for t in range(4):
            part = module.read(session.step(backbone.normalize(clip.images[:, t : t + 1])))
            # 1e-4: float32 attention over a cache sums in another order.
            torch.testing.assert_close(part.depth, whole.depth[:, t : t + 1], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(part.rays, whole.rays[:, t : t + 1], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(part.pose, whole.pose[:, t : t + 1], rtol=1e-4, atol=1e-4)


def test_gradients_reach_every_part(backbone, make_scene_clip):
    module = built(backbone)
    loss = module.compute(backbone, make_scene_clip(), step=0)
    loss.total.backward()
    assert [n for n, p in module.named_parameters() if p.grad is None] == []
    unused = {n for n, p in backbone.named_parameters() if p.grad is None}
    assert unused <= {"mask_token"}
    assert backbone.camera_token.grad.any()
    assert backbone.aspect_embed.weight.grad.any()
    assert set(loss.terms) == {"depth", "ray", "points", "camera", "depth_l1", "depth_gradient", "confidence"}
    assert not any(value.requires_grad for value in loss.terms.values())


def test_only_validation_keeps_predictions(backbone, make_scene_clip):
    module, clip = built(backbone), make_scene_clip()
    assert module.train().compute(backbone, clip, 0).aux == {}
    aux = module.eval().compute(backbone, clip, 0).aux
    assert aux["depth"].shape == aux["targets"].depth.shape == (2, 3, 16, 24)
    assert not aux["depth"].requires_grad


@torch.no_grad()
def test_plots_show_prediction_beside_truth(backbone, make_scene_clip):
    module, clip = built(backbone).eval(), make_scene_clip()
    plots = module.plots(backbone.eval(), clip, limit=1)
    assert set(plots) == {"depth/0", "camera/0", "features/0"}
    torch.testing.assert_close(plots["depth/0"].prediction, module.predict(backbone, clip.images).depth[0])
    poses = relative_to_first(clip.camera_to_world[0])
    poses[:, :3, 3] /= module.targets(clip).scale[0]
    torch.testing.assert_close(plots["camera/0"].truth, poses, rtol=1e-4, atol=1e-5)


def test_metrics_are_those_of_all_batches_and_start_afresh(backbone, make_scene_clip):
    module, clips = built(backbone).eval(), [make_scene_clip(seed=seed, batch=1 + seed) for seed in range(2)]
    backbone.eval()
    assert module.compute_metrics() == {}
    for _ in range(2):
        for clip in clips:
            module.update_metrics(backbone, clip, module.compute(backbone, clip, 0))
        values = module.compute_metrics()
        aligned = {f"{name}_{alignment}" for name in ("abs_rel", "delta1") for alignment in ("median", "scale")}
        assert set(values) == aligned | {"abs_rel", "abs_rel_constant"}
        both = [module.predict(backbone, clip.images).depth for clip in clips]
        truth = torch.cat([module.targets(clip).depth for clip in clips])
        expected = abs_rel(torch.cat(both), truth, torch.ones_like(truth, dtype=torch.bool), "median")
        torch.testing.assert_close(values["abs_rel_median"], expected, rtol=1e-6, atol=0)
        constant = constant_abs_rel(truth, torch.ones_like(truth, dtype=torch.bool))
        torch.testing.assert_close(values["abs_rel_constant"], constant, rtol=0, atol=2e-3)  # of its bins
    assert module.compute_metrics() == {}


def test_colours_are_distorted_in_training_only(backbone, make_scene_clip):
    backbone.eval()
    clip = make_scene_clip()
    plain, coloured = (
        built(backbone, photometric=None),
        built(backbone, photometric=PhotometricConfig(brightness=0.5, jitter_probability=1.0)),
    )
    coloured.load_state_dict(plain.state_dict())
    losses = {
        (name, mode): module.train(mode).compute(backbone, clip, 0).total.item()
        for name, module in (("plain", plain), ("coloured", coloured))
        for mode in (True, False)
    }
    assert losses["plain", True] == losses["plain", False] == losses["coloured", False]
    assert losses["coloured", True] != losses["plain", True]
    again = coloured.train().compute(backbone, clip, 0).total.item()
    assert again == losses["coloured", True]
    other = coloured.compute(backbone, replace(clip, seed=clip.seed + 100), 0).total.item()
    assert other != again


def test_half_resolution_rays(backbone, make_scene_clip):
    module, clip = built(backbone, ray_down_ratio=2), make_scene_clip()
    assert module.predict(backbone, clip.images).rays.shape == (2, 3, 8, 12, 6)
    assert torch.isfinite(module.compute(backbone, clip, 0).total)


def test_bfloat16_backbone(backbone, make_scene_clip):
    module, clip = built(backbone), make_scene_clip()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module.compute(backbone, clip, 0)
    assert loss.total.dtype == torch.float32
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize("layers", [(0, 1, 2, 4), (0, 1, 2, -1)])
def test_layers_must_exist(backbone, layers):
    with pytest.raises(ValueError, match="blocks from 0 to 3"):
        built(backbone, layers=layers)


def test_overfits_one_clip(backbone, make_scene_clip):
    """Thirty steps on one clip: depth, rays and poses all get much better."""
    module = built(backbone, photometric=None)
    clip = make_scene_clip(batch=1, frames=3, size=(24, 24))
    module.train(), backbone.eval()  # eval: no random rescale of positions
    parameters = [*module.parameters(), *backbone.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    history = []
    for step in range(30):
        loss = module.compute(backbone, clip, step)
        optimizer.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        history.append(loss.terms | {"total": loss.total.detach()})
    first, last = history[0], history[-1]
    assert last["total"] < 0.45 * first["total"]
    assert last["depth_l1"] < 0.3 * first["depth_l1"]
    for term in ("ray", "points", "camera"):
        assert last[term] < 0.65 * first[term]


class Clips(Dataset):
    collate = staticmethod(SceneClip.collate)

    def __init__(self, make, count):
        fields = {name: value for name, value in vars(make(batch=count)).items() if value is not None}
        self.samples = [SceneClip(**{name: value[i] for name, value in fields.items()}) for i in range(count)]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, key):
        return self.samples[key]


def test_fitted_alone(backbone, make_scene_clip, tmp_path):
    module = GeometryModule(
        backbone, OptimizerConfig(lr=1e-3, warmup_steps=1), loss=GeometryLossConfig(grad_scales=2), **SMALL
    )
    data = Clips(make_scene_clip, 3)
    loader = DataLoader(data, batch_size=2, collate_fn=data.collate)
    trainer = L.Trainer(
        max_steps=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    before = module.dense.depth_neck.weight.detach().clone()
    trainer.fit(module, loader, loader)
    assert not torch.equal(before, module.dense.depth_neck.weight)
    for name in ("loss", "depth", "ray", "points", "camera"):
        assert torch.isfinite(trainer.callback_metrics[f"val/geometry/{name}"])
    logged = trainer.validate(module, loader, verbose=False)[0]
    module.eval()
    for batch in loader:
        module.update_metrics(backbone, batch, module.compute(backbone, batch, 0))
    expected = module.compute_metrics()
    assert len(expected) == 6
    assert {name: logged[f"val/geometry/{name}"] for name in expected} == pytest.approx(
        {k: v.item() for k, v in expected.items()}
    )


def test_alone_clips_gradients_as_its_optimiser_config_says(backbone, make_scene_clip, tmp_path):
    module = GeometryModule(backbone, OptimizerConfig(warmup_steps=0, grad_clip=1e-3), **SMALL)
    norms = []

    def measure(optimizer, args, kwargs):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.stack([gradient.norm() for gradient in gradients]).norm().item())

    configured = build_optimizer(module, module.optimizer_config, 1)
    configured["optimizer"].register_step_post_hook(measure)  # clipped inside the step, after the backward pass
    module.configure_optimizers = lambda: configured
    data = Clips(make_scene_clip, 2)
    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, batch_size=2, collate_fn=data.collate))
    assert norms == pytest.approx([1e-3], rel=1e-2)  # unclipped it is above 1
