"""Save a backbone as a folder, and share it on the Hugging Face hub."""

import inspect
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omnistream.backbone.model import StreamingViT
from omnistream.backbone.weights.source import NOT_STORED
from omnistream.paths import apply_umask
from omnistream.version import __version__

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
    """`save_pretrained` and `push_to_hub` of the backbone."""

    def save_pretrained(self, folder: Path | str, *, max_shard_size: int | str = "5GB") -> None:
        """Write `model.safetensors` (in shards with an index if larger) and `config.json` to a new or old folder."""
        from huggingface_hub import save_torch_state_dict

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_torch_state_dict(self.state_dict(), folder, max_shard_size=max_shard_size)
        for file in folder.glob("*.safetensors"):
            apply_umask(file)
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
        """Upload what `save_pretrained` writes to the Hugging Face hub, with a short model card if there is none.

        Args:
            repo_id: `owner/name`; created if it does not exist.
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
        """The settings that `from_pretrained` needs beside the weights."""
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
