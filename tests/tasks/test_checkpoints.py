"""Checkpoints are loaded without further settings, by models that leave tasks out, and never run foreign code."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from multitask_runs import fit, make_alone, make_backbone, make_data, make_module, make_tasks
from processes import run_python

from omnistream.tasks import MultiTaskModule, OptimizerConfig
from omnistream.tasks.geometry import GeometryModule
from omnistream.tasks.hyperparameters import from_plain, to_plain
from omnistream.tasks.ssl import SSLModule, TeacherConfig

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Checkpoint of a step of all tasks, and the module that wrote it."""
    folder, module = tmp_path_factory.mktemp("run"), make_module(weights={"ssl": 0.5}, seed=3)
    fit(folder, steps=1, module=module)
    return folder / "step=1.ckpt", module


def test_a_checkpoint_builds_its_module_again(run):
    file, module = run
    saved = torch.load(file, weights_only=True)  # plain data and tensors alone
    assert saved["hyper_parameters"]["backbone"]["init_args"]["variant"] == "vit_nano"
    loaded = MultiTaskModule.load_from_checkpoint(file)
    assert loaded.state_dict().keys() == module.state_dict().keys()
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert loaded.weights == {"ssl": 0.5, "geometry": 1.0, "captioning": 1.0}
    assert loaded.seed == 3
    assert loaded.optimizer_config == module.optimizer_config
    for name, task in module.objectives.items():
        assert loaded.objectives[name].hparams == task.hparams
        assert type(loaded.objectives[name]) is type(task)
    assert loaded.objectives["ssl"].teacher_config == TeacherConfig(momentum=(0.9, 1.0), temperature_warmup_steps=2)
    assert loaded.backbone.rope_rescale is None
    assert loaded.hparams == module.hparams


class Unsafe:
    """Would create a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_run_folder_is_loaded_and_a_home_folder_found(run, monkeypatch):
    file, module = run
    monkeypatch.setenv("HOME", str(file.parents[1]))
    for path in (file.parent, f"~/{file.parent.name}", f"~/{file.parent.name}/{file.name}"):
        loaded = MultiTaskModule.load_from_checkpoint(path)
        assert torch.equal(loaded.backbone.norm.weight, module.backbone.norm.weight)


def test_files_that_are_no_checkpoints_are_refused_in_one_line(run, tmp_path):
    ran, path = tmp_path / "ran", tmp_path / "a.ckpt"
    cases = {
        "could run code": lambda: torch.save({"state_dict": Unsafe(ran), "pytorch-lightning_version": "2"}, path),
        "was cut short": lambda: path.write_bytes(run[0].read_bytes()[:5000]),
        "not the checkpoint of a training run": lambda: torch.save({"state_dict": {"a": torch.ones(1)}}, path),
        "is a distributed checkpoint": lambda: (path.unlink(), path.mkdir(), (path / ".metadata").touch()),
    }
    for message, write in cases.items():
        write()
        with pytest.raises(ValueError, match=message) as error:
            MultiTaskModule.load_from_checkpoint(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    assert not ran.exists()


def test_arguments_replace_the_saved_ones(run):
    loaded = MultiTaskModule.load_from_checkpoint(run[0], seed=8, optimizer=OptimizerConfig(lr=0.5))
    assert (loaded.seed, loaded.optimizer_config.lr) == (8, 0.5)
    assert loaded.weights["ssl"] == 0.5


@pytest.mark.parametrize("name", ["ssl", "geometry", "captioning"])
def test_an_objective_alone_is_loaded_from_its_checkpoint(name, tmp_path):
    module = make_alone(name)
    fit(tmp_path, steps=1, module=module, data=make_data(only=name))
    loaded = type(module).load_from_checkpoint(tmp_path / "step=1.ckpt")
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in loaded.state_dict().items())
    assert loaded.hparams == module.hparams
    assert int(loaded.batch_count) == 1


def test_the_next_stage_is_not_read_again(run):
    file, _ = run
    module = make_module(init_from=file)
    assert module.hparams["init_from"] is None


class Wider(GeometryModule):
    """A user's own objective, with an argument that is no plain data."""

    def __init__(self, backbone=None, optimizer=None, *, width=1, function=None, **options):
        super().__init__(None, optimizer, **options)
        self.width, self.function = width, function
        self.record_arguments(locals())
        self.attach(backbone)


def test_arguments_of_subclasses_are_saved_where_they_are_plain():
    module = Wider(make_backbone(), width=4, function=print, hidden=8)
    assert (module.hparams["width"], module.hparams["hidden"]) == (4, 8)
    assert "function" not in module.hparams
    again = from_plain(to_plain(Wider(width=4)))
    assert (type(again), again.width, again.backbone) == (Wider, 4, None)


@pytest.mark.parametrize(
    "path", ["os.system", "builtins.print", "pathlib.Path", "not_imported.Thing", "omnistream.load"]
)
def test_no_other_class_is_built_from_a_checkpoint(path):
    with pytest.raises(ValueError, match=f"made with {path}, which is not"):
        from_plain({"class_path": path, "init_args": {}})


def test_plain_data_is_kept_as_it_is():
    config = TeacherConfig(momentum=(0.5, 0.75))
    value = {"a": [1, 2.5, None], "b": ("x", True), "c": {"d": config}}
    assert from_plain(to_plain(value)) == value
    assert from_plain(to_plain(SSLModule(teacher=config))).teacher_config == config


def evaluate(module, file, tmp_path, kind="validate"):
    """Validate with a trainer, as the command line does."""
    from lightning import Trainer

    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 1}
    trainer = Trainer(accelerator="cpu", default_root_dir=tmp_path, **options)
    return getattr(trainer, kind)(module, make_data(), ckpt_path=file, verbose=False)[0]


def with_tasks(*names):
    tasks = {name: task if name in names else None for name, task in make_tasks().items()}
    return MultiTaskModule(make_backbone(), tasks)


def test_a_task_may_be_left_out_of_an_evaluation(run, tmp_path, caplog):
    file, trained = run
    module = with_tasks("geometry")
    with caplog.at_level(logging.WARNING):
        results = evaluate(module, file, tmp_path)
    assert {name.split("/")[1] for name in results} == {"geometry"}
    assert torch.equal(module.backbone.norm.weight, trained.backbone.norm.weight)
    message = "also holds tasks.captioning, tasks.ssl, which this model leaves out: not loaded"
    assert [message in record.message for record in caplog.records].count(True) == 1
    loaded = MultiTaskModule.load_from_checkpoint(file, tasks={"geometry": make_tasks()["geometry"]}, weights=None)
    assert torch.equal(
        loaded.objectives["geometry"].camera.fov.weight, trained.objectives["geometry"].camera.fov.weight
    )


def test_training_goes_on_only_with_the_same_tasks(run, tmp_path):
    with pytest.raises(ValueError, match=r"also trained tasks\.captioning, tasks\.ssl, .*--model\.init_from"):
        fit(tmp_path, steps=2, module=with_tasks("geometry"), checkpoint=run[0])


def test_a_checkpoint_of_another_configuration_is_one_line(run, tmp_path):
    file, _ = run
    tasks = {**make_tasks(), "geometry": GeometryModule(features=24, out_channels=(8, 8, 16, 16), hidden=8)}
    with pytest.raises(ValueError, match=r"of another configuration: .* have another shape") as error:
        evaluate(MultiTaskModule(make_backbone(), tasks), file, tmp_path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    fit(tmp_path / "only", steps=1, module=with_tasks("geometry"))
    with pytest.raises(ValueError, match=r"\d+ weights are missing \(such as tasks\.ssl"):
        evaluate(make_module(), tmp_path / "only" / "step=1.ckpt", tmp_path)
    alone = make_alone("geometry")
    with pytest.raises(ValueError, match=r"are missing \(such as dense.*are unknown \(such as tasks"):
        evaluate(alone, file, tmp_path)


def test_hyperparameters_do_not_hold_the_objects_themselves():
    config = TeacherConfig(temperature_warmup_steps=1)
    module = SSLModule(teacher=config)
    assert module.hparams["teacher"]["init_args"]["temperature_warmup_steps"] == 1
    assert replace(config) == from_plain(module.hparams["teacher"])


@pytest.mark.slow
def test_a_task_may_be_left_out_of_a_sharded_evaluation(run, tmp_path):
    """FSDP2 reads single files by itself, before the module sees them; in a program of its own, as it stays joined."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(HERE)!r})\n"
        "import torch\n"
        "import omnistream.parallel\n"
        "from lightning import Trainer\n"
        "from multitask_runs import make_data\n"
        "from test_checkpoints import with_tasks\n"
        "module = with_tasks('geometry')\n"
        "options = {'strategy': 'fsdp2', 'use_distributed_sampler': False, 'logger': False}\n"
        "trainer = Trainer(accelerator='cpu', devices=1, **options)\n"
        "trainer.validate(module, make_data(), ckpt_path=sys.argv[1], verbose=False)\n"
        "torch.save(module.backbone.norm.weight.full_tensor().detach(), sys.argv[2])\n"
        "assert module.strict_loading\n"
    )
    output = run_python([str(program), str(run[0]), str(tmp_path / "norm.pt")], cwd=tmp_path, import_from=[HERE.parent])
    assert "also holds tasks.captioning, tasks.ssl, which this model leaves out: not loaded" in output
    assert torch.equal(torch.load(tmp_path / "norm.pt"), run[1].backbone.norm.weight)
