"""Save a backbone as a folder, load one from anywhere, and share it on the Hugging Face hub."""

import inspect
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from omnistream.backbone.model import StreamingViT
from omnistream.backbone.weights.load import build, log
from omnistream.backbone.weights.source import NOT_STORED, read_source
from omnistream.version import __version__

ModelT = TypeVar("ModelT", bound=StreamingViT)

_CARD = """\
---
library_name: omnistream
pipeline_tag: image-feature-extraction
---

A {variant} backbone of [OmniStream](https://arxiv.org/abs/2603.12265), a streaming vision transformer.

```python
from omnistream.backbone import OmniStream

model = OmniStream.from_pretrained("{repo_id}")
```
"""


class HubMixin(StreamingViT):
    """`from_pretrained`, `save_pretrained` and `push_to_hub` of the backbone."""

    @classmethod
    def from_pretrained(
        cls: type[ModelT],
        source: Path | str,
        *,
        revision: str | None = None,
        token: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **overrides: Any,
    ) -> ModelT:
        """A backbone in eval mode with published or saved weights; a log line says what was converted and how.

        The layout (this library's, the authors' release, Meta's, timm's or Hugging Face's DINOv3), the variant and
        mean and standard deviation of the input are found out from the weights and the settings stored beside them.
        The release gets `rope_layout="official"`; a DINOv3 gets `rotation` unless told otherwise, and `spatial` gives
        its own features.

        Args:
            source: Path of a file (.safetensors, .pth, .pt, .bin, .ckpt) or folder, or a hub id such as
                `timm/vit_large_patch16_dinov3_qkvb.lvd1689m`.
            revision: Branch, tag or commit on the hub.
            token: Access token of the hub; default that of `hf auth login`.
            mean: Channel means of the input for images in [0, 1], instead of the source's.
            std: Channel standard deviations, instead of the source's.
            overrides: Arguments of the constructor, e.g. `window=64`.

        Raises:
            FileNotFoundError: If there is no such file or folder.
            ValueError: If the weights are unknown, incomplete, do not fit, or could run code.
        """
        found = read_source(source, revision=revision, token=token)
        model, report = build(cls, found, mean=mean, std=std, **overrides)
        log(report, found)
        return model.eval()

    def save_pretrained(self, folder: Path | str, *, max_shard_size: int | str = "5GB") -> None:
        """Write `model.safetensors` (in shards with an index if larger) and `config.json`; the folder is made."""
        from huggingface_hub import save_torch_state_dict

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_torch_state_dict(self.state_dict(), folder, max_shard_size=max_shard_size)
        (folder / "config.json").write_text(json.dumps(self._config(), indent=2) + "\n", encoding="utf-8")

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload OmniStream backbone",
        revision: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Upload what `save_pretrained` writes to the Hugging Face hub, with a short card if there is none.

        Args:
            repo_id: `owner/name`; made if it does not exist.
            private: Whether a new repository is private; None for the owner's default.
            token: Access token with write permission; default that of `hf auth login`.
            commit_message: Message of the commit.
            revision: Branch to commit to.
            create_pr: Open a pull request instead of committing.

        Returns:
            Address of the commit.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token, library_name="omnistream", library_version=__version__)
        repo_id = str(api.create_repo(repo_id, private=private, exist_ok=True).repo_id)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            if not api.file_exists(repo_id, "README.md", revision=revision):
                (Path(folder) / "README.md").write_text(_CARD.format(variant=self.variant, repo_id=repo_id))
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=commit_message,
                revision=revision,
                create_pr=create_pr,
            )
        return str(commit)

    def _config(self) -> dict[str, Any]:
        """What `from_pretrained` needs beside the weights."""
        names = [name for name in inspect.signature(type(self).__init__).parameters if name not in NOT_STORED]
        architecture = asdict(self.arch)
        for name in ("timm_name", "mean", "std", "description", "default_layers"):
            del architecture[name]  # mean and std are the model's own, below
        return {
            "model_type": "omnistream",
            "library_version": __version__,
            "variant": self.variant,
            "architecture": architecture,
            "options": {name: getattr(self, name) for name in names if hasattr(self, name)},
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
        }
