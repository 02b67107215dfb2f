"""The model part of a configuration: the real multi-task module, as small as it can be."""

MODEL = """\
model:
  class_path: omnistream.tasks.MultiTaskModule
  init_args:
    backbone: {class_path: omnistream.backbone.OmniStream, init_args: {variant: vit_nano}}
    tasks:
      ssl:
        class_path: omnistream.tasks.ssl.SSLModule
        init_args: {heads: {num_prototypes: 4, hidden_dim: 16, bottleneck_dim: 8}}
      geometry:
        class_path: omnistream.tasks.geometry.GeometryModule
        init_args: {features: 8, out_channels: [8, 8, 8, 8], hidden: 8}
    optimizer: {warmup_steps: 1}
"""
