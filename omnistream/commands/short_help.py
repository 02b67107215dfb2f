"""`omnistream fit --help`: the options that most runs need; `--help all` lists every key of the trainer."""

_DESCRIPTIONS = {
    "fit": "Train: all objectives together, or one alone.",
    "validate": "Losses and metrics of a checkpoint on the validation sets.",
    "test": "Losses and metrics of a checkpoint on the test sets.",
    "predict": "Write a checkpoint's features of every clip of the validation sets.",
}
_HELP = """\
usage: omnistream {command} -c CONFIG [-c CHANGES] [--key value ...]

{description} A configuration names the model, its data and the trainer; `--key value` changes any of its keys,
and a second file may hold changes. Paths may contain ~ and $VARIABLES.

configuration
  -c, --config CONFIG               packaged (`omnistream configs` lists them) or path of a YAML file
  --print_config                    print the whole configuration and stop
  --seed_everything N               seed of everything random

checkpoint
{checkpoint}

model (of omnistream.tasks.MultiTaskModule; for another class: --model.help CLASS)
  --model.backbone.variant NAME     size of the backbone (`omnistream models` lists them)
  --model.backbone.checkpoint PATH  weights of the backbone: a file, folder or hub id
  --model.tasks.TASK null           leave out a task: ssl, geometry or captioning
  --model.tasks.TASK.KEY VALUE      a setting of a task
  --model.weights.TASK X            weight of its loss
  --model.optimizer.lr X            learning rate; .backbone_lr, .warmup_steps and .weight_decay beside it
  --model.init_from PATH            start from the weights of another run, with a new optimizer
  --model.compile true              compile the transformer blocks

data (of omnistream.data.MultiTaskDataModule; for another class: --data.help CLASS)
  --data.num_workers N              processes that read samples
  --data.sources.SOURCE.batch_size N
                                    samples per step and process of ssl/image, ssl/video, geometry or captioning
  --data.sources.SOURCE.train CLASS another data set; .val and .test beside it
  --data.root FOLDER                your own data, with -c real_samples

trainer
  --trainer.max_steps N             length of training
  --trainer.accelerator KIND        cpu, gpu or auto
  --trainer.devices N               processes, one per GPU
  --trainer.strategy NAME           auto, ddp or fsdp2
  --trainer.precision KIND          32-true or bf16-mixed
  --trainer.val_check_interval N    steps between validations
  --trainer.limit_val_batches N     batches per validation
  --trainer.logger.save_dir FOLDER  where runs are written: FOLDER/NAME/version_N
  --trainer.enable_progress_bar false

examples
{examples}

`omnistream {command} --help all` lists every key of Lightning's Trainer.
"""
_CHECKPOINTS = {
    "fit": """\
  --ckpt_path PATH                  continue the run of a checkpoint or run folder; last: of this configuration's last
                                    run (Ctrl-C and SIGTERM save a checkpoint and print the command that continues)""",
    "evaluation": """\
  --ckpt_path PATH                  checkpoint or run folder to use; last: of this configuration's last run
  --random                          go without, to try a configuration on random weights""",
}
_EXAMPLES = {
    "fit": """\
  omnistream fit -c quickstart
  omnistream fit -c quickstart -c ablations/without_geometry --trainer.max_steps 100
  omnistream fit -c quickstart --ckpt_path last""",
    "evaluation": """\
  omnistream {command} -c quickstart --ckpt_path last
  omnistream {command} -c quickstart --ckpt_path runs/quickstart/version_0 --model.tasks.geometry null
Results go to a folder {command} in the run of the checkpoint.""",
}


def short_help(command: str) -> str:
    """The text for `fit`, `validate`, `test` or `predict`."""
    kind = "fit" if command == "fit" else "evaluation"
    return _HELP.format(
        command=command,
        description=_DESCRIPTIONS[command],
        checkpoint=_CHECKPOINTS[kind],
        examples=_EXAMPLES[kind].format(command=command),
    )
