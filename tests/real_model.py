"""Parts of a configuration: the real multi-task module, and data for it, as small as they can be."""

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
CROPS = (
    "{class_path: omnistream.data.views.MultiCropDataset, init_args: {base: "
    "{class_path: omnistream.data.world.WorldFrames, init_args: {num_samples: 4, num_frames: 1, size: [32, 32]}}, "
    "crops: {global_size: 32, local_size: 16, patch_size: 8}}}"
)
"""A data set of crops of four images, on one line."""
