import copy
from pathlib import Path

import pytest
import torch
from lightning import Callback
from multitask_runs import (
    NonFiniteConfig,
    fit,
    make_alone,
    make_backbone,
    make_data,
    make_module,
    make_tasks,
    poison,
    poisoned,
)
from processes import run_python
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from omnistream.backbone import create_model
from omnistream.tasks import MultiTaskModule, NonFiniteLossError, OptimizerConfig

HERE = Path(__file__).parent
TOLERANCE = 5e-4
"""Relative: sums in another order, amplified by four Adam steps from tiny second moments."""
TRAIN_LOSSES = ["train/ssl/image/loss", "train/ssl/video/loss", "train/geometry/loss", "train/captioning/loss"]


def in_two_processes(folder: Path, strategy: str, *checkpoint: Path) -> list[dict[str, float]]:
    """Run four steps in a fresh interpreter, which starts the other one, and read back the numbers of rank zero."""
    arguments = [HERE / "multitask_runs.py", folder, strategy, 2, 4, *checkpoint]
    run_python([str(argument) for argument in arguments], cwd=HERE)
    return torch.load(folder / "losses.pt", weights_only=True)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "step=4.ckpt", weights_only=True)["state_dict"]


def optimizer_state(folder: Path) -> dict[str, dict]:
    return torch.load(folder / "step=4.ckpt", weights_only=True)["optimizer_states"][0]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, fit(folder, steps=4)


def test_logs_every_task_term_gradient_norm_and_learning_rate(uninterrupted):
    _, history = uninterrupted
    assert len(history) == 4
    for name in [
        *TRAIN_LOSSES,
        "train/ssl/image/dino_global",
        "train/ssl/image/gram",
        "train/ssl/video/ibot",
        "train/geometry/depth",
        "train/captioning/token",
        "train/lr",
        "grad_norm/backbone",
        "grad_norm/ssl",
        "grad_norm/geometry",
        "grad_norm/captioning",
        "grad_norm/total",
    ]:
        assert all(torch.isfinite(torch.tensor(step[name])) for step in history), name
    # Of the step just made: linear warm-up from 0.
    assert [step["train/lr"] for step in history][:3] == pytest.approx([0.0, 5e-4, 1e-3])


def test_weighted_sum_of_tasks_is_what_is_optimised(tmp_path):
    """The gradient after one pass equals that of the paper's weighted sum in one backward."""
    module = make_module()
    module.optimizer_config.grad_clip = None
    module.weights = {"ssl": 0.1, "geometry": 1.0, "captioning": 1.0}
    captured = {}

    def capture(optimizer, args, kwargs):
        captured.update({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})

    reference = copy.deepcopy(module)
    data = make_data()
    module.configure_optimizers = lambda f=module.configure_optimizers: _hooked(f(), capture)
    fit(tmp_path, steps=1, module=module, data=data)
    batch = {
        name: _nested_batch(data, name) for name in ("ssl", "geometry", "captioning")
    }  # the same first batch, by the same sampler
    reference.train()
    torch.manual_seed(0)
    total = torch.zeros(())
    for name, task in reference.objectives.items():
        task.total_steps = 1
        for part in task.micro_batches(batch[name]).values():
            total = total + reference.weights[name] * task.compute(reference.backbone, part, 0).total
    total.backward()
    expected = {n: p.grad for n, p in reference.named_parameters() if p.grad is not None}
    assert captured.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(captured[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def _hooked(configured, capture):
    configured["optimizer"].register_step_pre_hook(capture)
    return configured


def _nested_batch(data, task):
    data.batches_seen = 0
    loaders = {n: data._train_loader(n, s) for n, s in data.sources.items() if n.split("/")[0] == task}
    batches = {n: next(iter(loader)) for n, loader in loaders.items()}
    return {n.split("/")[1]: b for n, b in batches.items()} if task == "ssl" else batches[task]


@pytest.mark.parametrize("name", ["ssl", "geometry", "captioning"])
def test_an_objective_alone_runs_the_same_loop(name, tmp_path):
    """Same numbers under the same names as with that one task, bit for bit, validation included."""
    alone, options = make_alone(name), {"limit_val_batches": 1, "val_check_interval": 2, "steps": 3}
    torch.manual_seed(0)
    only = MultiTaskModule(
        make_backbone(), {name: make_tasks()[name]}, {name: 1.0}, optimizer=alone.optimizer_config, seed=alone.seed
    )
    only.load_state_dict(_renamed(alone.state_dict(), name))
    expected = fit(tmp_path / "tasks", module=only, data=make_data(only=name), **options)
    found = fit(tmp_path / "alone", module=alone, data=make_data(only=name), **options)
    assert found == expected
    assert any(key.startswith(f"train/{name}/") for key in found[0])
    assert {"train/lr", "grad_norm/backbone", f"grad_norm/{name}", "grad_norm/total"} <= found[0].keys()
    validated = [module.trainer.callback_metrics for module in (alone, only)]
    names = {key for key in validated[0] if key.startswith("val/")}
    assert names == {key for key in validated[1] if key.startswith("val/")} != set()
    assert all(torch.equal(validated[0][key], validated[1][key]) for key in names)


def _renamed(state, name):
    shared = ("backbone.", "batch_count")
    return {key if key.startswith(shared) else f"tasks.{name}.{key}": value for key, value in state.items()}


@pytest.mark.parametrize("kind", ["ddp-ssl", "fsdp2-geometry"])
def test_an_objective_alone_in_two_processes_equals_one(kind, tmp_path):
    """Camera token or mask token of the backbone have no part in the loss, for which DDP needs no option."""
    name = kind.partition("-")[2]
    one = fit(tmp_path / "one", module=make_alone(name), data=make_data(only=name))
    two = in_two_processes(tmp_path / "two", kind)
    assert [step.keys() for step in two] == [step.keys() for step in one]
    for step, (single, double) in enumerate(zip(one, two, strict=True)):
        assert double == pytest.approx(single, rel=TOLERANCE, abs=1e-6), step


def test_an_objective_alone_stops_at_what_is_not_finite(tmp_path):
    module = make_alone("geometry")
    poison(module, module, {1})
    with pytest.raises(NonFiniteLossError, match=r"step 1 .*the ray of task geometry is not finite"):
        fit(tmp_path, steps=3, module=module, data=make_data(only="geometry"))
    module = make_alone("geometry", nonfinite=NonFiniteConfig("skip", limit=1))
    poison(module, module, {1})
    assert len(fit(tmp_path, steps=3, module=module, data=make_data(only="geometry"))) == 4


def draws_of(folder, rank=0):
    return torch.load(folder / f"rescale-{rank}.pt", weights_only=True)


def test_positions_are_drawn_per_forward_and_process_and_repeated_by_a_resumed_run(tmp_path, monkeypatch):
    fit(tmp_path / "first", steps=2, strategy="auto-rescale")
    first = draws_of(tmp_path / "first")
    assert len(first) == len(set(first)) == 2 * 2 * 6  # steps; time and space; two views of images, of clips, two tasks
    fit(tmp_path / "resumed", steps=2, strategy="auto-rescale", checkpoint=tmp_path / "first" / "step=1.ckpt")
    assert draws_of(tmp_path / "resumed") == first[len(first) // 2 :]
    monkeypatch.setattr("omnistream.backbone.rope.rank", lambda: 1)
    fit(tmp_path / "other", steps=2, strategy="auto-rescale")
    assert set(draws_of(tmp_path / "other")).isdisjoint(first)


@pytest.mark.parametrize("is_trained", [True, False])
def test_a_backbone_that_comes_in_eval_mode_is_trained_in_train_mode(is_trained, tmp_path):
    """As `from_pretrained` returns it; a frozen one keeps its mode."""
    module = make_module()
    module.backbone.eval().requires_grad_(is_trained)
    fit(tmp_path, steps=1, module=module)
    assert all(part.training == is_trained for part in module.backbone.modules())


@pytest.mark.slow
def test_two_processes_draw_their_own_positions(tmp_path):
    """Rank 0 draws what one process draws, rank 1 something else, and a resumed run repeats both."""
    fit(tmp_path / "one", strategy="auto-rescale")
    in_two_processes(tmp_path / "two", "ddp-rescale")
    in_two_processes(tmp_path / "resumed", "ddp-rescale", tmp_path / "two" / "step=2.ckpt")
    one, two = draws_of(tmp_path / "one"), [draws_of(tmp_path / "two", rank) for rank in range(2)]
    assert two[0] == one
    assert set(two[1]).isdisjoint(one)
    for rank in range(2):
        assert draws_of(tmp_path / "resumed", rank) == two[rank][len(one) // 2 :]


@pytest.mark.parametrize("stop", [1, 3])
def test_resume_repeats_the_run_bit_for_bit(uninterrupted, tmp_path, stop):
    folder, history = uninterrupted
    torch.manual_seed(1234)  # global state must not matter
    resumed = fit(tmp_path, steps=4, checkpoint=folder / f"step={stop}.ckpt", module=make_module())
    assert resumed == history[stop:]


def test_checkpoint_holds_teacher_and_loader_position(uninterrupted):
    folder, _ = uninterrupted
    state = torch.load(folder / "step=3.ckpt", weights_only=True)
    assert state["MultiTaskDataModule"] == {"batches_seen": 3}
    teacher = {k: v for k, v in state["state_dict"].items() if k.startswith("tasks.ssl.teacher.")}
    assert any(k.endswith("blocks.0.attn.qkv.weight") for k in teacher)
    student = state["state_dict"]["backbone.blocks.0.attn.qkv.weight"]
    assert not torch.equal(teacher["tasks.ssl.teacher.backbone.blocks.0.attn.qkv.weight"], student)


def test_worker_processes_do_not_change_the_run(uninterrupted, tmp_path):
    _, history = uninterrupted
    assert fit(tmp_path, steps=4, data=make_data(num_workers=1)) == history


@pytest.fixture(scope="module", params=["ddp", "fsdp2"])
def parallel(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, in_two_processes(folder, request.param)


def test_two_processes_equal_one(uninterrupted, parallel):
    folder, history = uninterrupted
    _, parallel_folder, parallel_history = parallel
    for step, (one, two) in enumerate(zip(history, parallel_history, strict=True)):
        for name in [*TRAIN_LOSSES, "grad_norm/total"]:
            assert two[name] == pytest.approx(one[name], rel=TOLERANCE), (step, name)
    # One file, whatever the strategy, with the same weights and teachers as that of one process.
    one, two = weights_of(folder), weights_of(parallel_folder)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=2e-4, msg=name)


def test_two_processes_resume_bit_for_bit(parallel, tmp_path):
    strategy, folder, history = parallel
    resumed = in_two_processes(tmp_path, strategy, folder / "step=2.ckpt")
    assert resumed == history[2:]
    whole, continued = weights_of(folder), weights_of(tmp_path)
    assert whole.keys() == continued.keys()
    assert all(torch.equal(continued[name], value) for name, value in whole.items())


@pytest.mark.slow
def test_two_processes_resume_with_a_parameter_that_has_no_gradient(tmp_path):
    """Geometry masks no patches, so the mask token never gets moments; a resumed run gives it none either."""
    history = in_two_processes(tmp_path / "whole", "fsdp2-geometry")
    resumed = in_two_processes(tmp_path / "continued", "fsdp2-geometry", tmp_path / "whole" / "step=2.ckpt")
    assert resumed == history[2:]
    whole, continued = weights_of(tmp_path / "whole"), weights_of(tmp_path / "continued")
    assert all(torch.equal(continued[name], value) for name, value in whole.items())
    moments, again = (optimizer_state(tmp_path / folder)["state"] for folder in ("whole", "continued"))
    assert moments.keys() == again.keys()
    assert all(torch.equal(again[name][key], value) for name in moments for key, value in moments[name].items())


@pytest.mark.slow
def test_two_processes_resume_from_a_folder_with_a_parameter_that_has_no_gradient(tmp_path):
    history = in_two_processes(tmp_path / "whole", "fsdp2-folders-geometry")
    resumed = in_two_processes(tmp_path / "continued", "fsdp2-folders-geometry", tmp_path / "whole" / "step=2.ckpt")
    assert resumed == history[2:]


@pytest.mark.slow
def test_two_processes_resume_from_a_folder_bit_for_bit(tmp_path):
    """A checkpoint with a part per process, as large models need; it may also go on with single files."""
    history = in_two_processes(tmp_path / "whole", "fsdp2-folders")
    assert (tmp_path / "whole" / "step=2.ckpt" / ".metadata").is_file()
    assert len(list((tmp_path / "whole" / "step=2.ckpt").glob("*.distcp"))) == 2
    resumed = in_two_processes(tmp_path / "continued", "fsdp2", tmp_path / "whole" / "step=2.ckpt")
    assert resumed == history[2:]
    dcp_to_torch_save(tmp_path / "whole" / "step=4.ckpt", tmp_path / "whole.pt")
    whole = torch.load(tmp_path / "whole.pt", weights_only=True)["state_dict"]
    continued = weights_of(tmp_path / "continued")
    assert whole.keys() == continued.keys()
    assert all(torch.equal(continued[name], value) for name, value in whole.items())


def test_a_nonfinite_loss_stops_and_names_task_and_term(tmp_path):
    with pytest.raises(NonFiniteLossError, match=r"step 1 .*the ray of task geometry is not finite"):
        fit(tmp_path, steps=3, module=poisoned(make_module(), {1}))


def test_skipped_steps_change_nothing_and_are_limited(tmp_path):
    module = poisoned(make_module(nonfinite=NonFiniteConfig("skip", limit=1)), {1})
    first_task, weights = module.objectives["ssl"], []
    compute = first_task.compute

    def watched(backbone, batch, step):
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]))
        return compute(backbone, batch, step)

    first_task.compute = watched
    history = fit(tmp_path, steps=3, module=module)
    before = weights[::2]  # of student and teachers before each batch, which this task sees in two parts
    assert torch.equal(before[1], before[2])
    assert not torch.equal(before[2], before[3])
    assert int(module.batch_count) == 4  # one batch more than steps
    assert all(torch.isfinite(p).all() for p in module.parameters())
    assert len(history) == 4
    with pytest.raises(NonFiniteLossError, match="2 steps in a row, the limit is 1"):
        fit(tmp_path / "b", steps=3, module=poisoned(make_module(nonfinite=NonFiniteConfig("skip", 1)), {1, 2}))


def _teacher_moves(module, steps):
    """Record the momentum of every move of the teacher."""
    momentum = module.teacher_momentum
    module.teacher_momentum = lambda step: steps.append(step) or momentum(step)


def test_accumulated_batches_make_one_step_and_one_move_of_the_teacher(tmp_path):
    """Also when training is resumed between the batches of one step."""
    optimizer, moves, resumed_moves = OptimizerConfig(lr=1e-3, warmup_steps=0, accumulate_grad_batches=2), [], []
    module = make_alone("ssl", optimizer=optimizer)
    _teacher_moves(module, moves)
    callback = SaveBetween(tmp_path / "between.ckpt", batch=2)
    fit(tmp_path, steps=3, module=module, data=make_data(only="ssl"), callbacks=[callback])
    assert moves == [0, 1, 2]
    assert int(module.batch_count) == 6
    resumed = make_alone("ssl", optimizer=optimizer)
    _teacher_moves(resumed, resumed_moves)
    fit(tmp_path / "b", steps=3, module=resumed, data=make_data(only="ssl"), checkpoint=tmp_path / "between.ckpt")
    assert resumed_moves == [1, 2]  # the third batch, seen before the checkpoint, belongs to no step now
    assert int(resumed.batch_count) == 7


class SaveBetween(Callback):
    """Saves a checkpoint after some batch."""

    def __init__(self, file, batch):
        self.file, self.batch = file, batch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == self.batch:
            trainer.save_checkpoint(self.file)


def test_accumulated_gradients_are_the_mean_of_those_of_the_batches(tmp_path):
    optimizer = OptimizerConfig(lr=1e-3, warmup_steps=0, grad_clip=None, accumulate_grad_batches=2)
    module, data, gradients = make_alone("geometry", optimizer=optimizer), make_data(only="geometry"), {}
    reference = copy.deepcopy(module).train()

    def capture(optimizer, args, kwargs):
        gradients.update({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})

    module.configure_optimizers = lambda f=module.configure_optimizers: _hooked(f(), capture)
    numbers = fit(tmp_path, steps=1, module=module, data=data)[-1]
    data.batches_seen = 0
    loader = iter(data._train_loader("geometry", data.sources["geometry"]))
    losses = [reference.compute(reference.backbone, next(loader), 0).total for _ in range(2)]
    mean = sum(losses) / 2
    mean.backward()
    expected = {n: p.grad for n, p in reference.named_parameters() if p.grad is not None}
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)  # float32
    assert numbers["train/geometry/loss"] == pytest.approx(mean.item())


def test_a_task_set_to_null_is_neither_trained_nor_loaded(tmp_path):
    full = make_module()
    tasks = {"ssl": None, "geometry": full.objectives["geometry"], "captioning": None}
    torch.manual_seed(0)
    module = MultiTaskModule(full.backbone, tasks, optimizer=full.optimizer_config)
    first = fit(tmp_path, steps=1, module=module)[0]
    assert "train/geometry/loss" in first
    assert not any("ssl" in name or "captioning" in name for name in first)


def test_the_gradient_of_all_parameters_together_is_clipped(tmp_path):
    module, gradients = make_module(), {}
    module.optimizer_config.grad_clip = 1e-3

    def capture(optimizer, args, kwargs):
        gradients.update({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})

    module.configure_optimizers = lambda f=module.configure_optimizers: _hooked(f(), capture)
    (numbers,) = fit(tmp_path, steps=1, module=module)
    assert numbers["grad_norm/total"] > 1
    parts = [numbers[f"grad_norm/{name}"] for name in ("backbone", "ssl", "geometry", "captioning")]
    assert numbers["grad_norm/total"] == pytest.approx(sum(part**2 for part in parts) ** 0.5)
    assert torch.stack([g.norm() for g in gradients.values()]).norm().item() == pytest.approx(1e-3, rel=1e-3)
    heads = torch.stack([g.norm() for n, g in gradients.items() if n.startswith("tasks.geometry.")]).norm()
    assert heads.item() == pytest.approx(1e-3 * parts[2] / numbers["grad_norm/total"], rel=1e-3)


def test_weights_of_tasks():
    assert make_module().weights == {"ssl": 0.1, "geometry": 1.0, "captioning": 1.0}  # paper Eq. 10
    assert make_module(weights={"geometry": 0.0}).weights == {"ssl": 0.1, "geometry": 0.0, "captioning": 1.0}
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=rf"finite and not negative, got {{'ssl': {bad}}}"):
            make_module(weights={"ssl": bad})


def test_clear_errors():
    backbone = create_model("vit_nano")
    with pytest.raises(ValueError, match="every task is null"):
        MultiTaskModule(backbone, {"ssl": None})
    with pytest.raises(ValueError, match="weights for tasks that do not exist"):
        MultiTaskModule(backbone, {"geometry": make_module().objectives["geometry"]}, weights={"geo": 1.0})


def test_a_next_stage_takes_over_weights_heads_and_teachers(uninterrupted, tmp_path):
    folder, _ = uninterrupted
    file = folder / "step=3.ckpt"
    state = torch.load(file, weights_only=True)["state_dict"]
    module = make_module(init_from=file)
    own = module.state_dict()
    assert int(own.pop("batch_count")) == 0
    assert all(torch.equal(value, state[name]) for name, value in own.items())
    assert not torch.equal(make_module().state_dict()["backbone.norm.weight"], own["backbone.norm.weight"])
    with pytest.raises(FileNotFoundError, match="no checkpoint and no run folder"):
        make_module(init_from=tmp_path / "none.ckpt")
    torch.save({"state_dict": {"backbone.norm.weight": own["backbone.norm.weight"]}}, tmp_path / "part.ckpt")
    with pytest.raises(ValueError, match=r"lacks .* weights of this model"):
        make_module(init_from=tmp_path / "part.ckpt")
