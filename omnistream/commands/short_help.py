"""`omnistream fit --help`: the options that most runs need; `--help all` lists every key of the trainer."""

_DESCRIPTIONS = {
    "fit": "Train: all objectives together, or one alone.",
    "validate": "Losses and metrics of a checkpoint on the validation sets.",
    "test": "Losses and metrics of a checkpoint on the test sets.",
    "predict": "Write a checkpoint's features of every clip of the validation sets.",
}
_HELP = """\
usage: omnistream {command} -c CONFIG [-c CHANGES] [--key value ...]

{description}
A configuration names model, data and trainer. `--key value` changes any of its
keys, and so does a second file. Paths may contain ~ and $VARIABLES.

configuration
  -c, --config CONFIG            packaged (see `omnistream configs`) or a file
  --print_config                 print the whole configuration and stop
  --seed_everything N            seed of all random numbers

checkpoint
{checkpoint}

model (omnistream.tasks.MultiTaskModule; of another: --model.help CLASS)
  --model.backbone.variant NAME  size of the backbone (see `omnistream models`)
  --model.tasks.TASK null        leave out ssl, geometry or captioning
  --model.tasks.TASK.KEY VALUE   a setting of a task
  --model.weights.TASK X         weight of its loss
  --model.optimizer.lr X         learning rate; also .backbone_lr, .warmup_steps
  --model.init_from PATH         weights of another run, for a new one
  --model.compile true           compile the transformer blocks

data (omnistream.data.MultiTaskDataModule; of another: --data.help CLASS)
  --data.num_workers N           processes that read samples
  --data.sources.SOURCE.batch_size N
                                 SOURCE: ssl/image, ssl/video, geometry, ...
  --data.root FOLDER             your own data, with -c real_samples

trainer
  --trainer.max_steps N          length of training
  --trainer.accelerator KIND     cpu, gpu or auto
  --trainer.devices N            number of processes, one per GPU
  --trainer.strategy NAME        auto, ddp or fsdp2
  --trainer.precision KIND       32-true or bf16-mixed
  --trainer.val_check_interval N
                                 steps between validations
  --trainer.limit_val_batches N  batches per validation
  --trainer.logger.save_dir FOLDER
                                 runs go to FOLDER/NAME/version_N

examples
{examples}

`omnistream {command} --help all` lists every key of Lightning's Trainer.
"""
_CHECKPOINTS = {
    "fit": """\
  --ckpt_path PATH               continue the run of a checkpoint or run folder;
                                 `last`: the last run of this configuration.
                                 Ctrl-C and SIGTERM save a checkpoint and print
                                 the command that continues.""",
    "evaluation": """\
  --ckpt_path PATH               checkpoint or run folder to evaluate;
                                 `last`: the last run of this configuration
  --random                       without one: try it on random weights""",
}
_EXAMPLES = {
    "fit": """\
  omnistream fit -c quickstart
  omnistream fit -c quickstart -c ablations/without_geometry
  omnistream fit -c quickstart --ckpt_path last""",
    "evaluation": """\
  omnistream {command} -c quickstart --ckpt_path last
  omnistream {command} -c quickstart --ckpt_path runs/quickstart/version_0
Results go to the folder {command} in the run of the checkpoint.""",
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
