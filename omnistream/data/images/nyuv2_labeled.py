"""NYUv2: the labelled images, one MATLAB file."""

import os
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from omnistream.data.errors import DatasetNotFoundError
from omnistream.data.folders import dataset_root
from omnistream.data.images.nyuv2 import NYUImages, NYUSplit
from omnistream.data.media.errors import MediaReadError
from omnistream.data.transforms import PairTransform

EXPECTED = "nyu_depth_v2_labeled.mat (1,449 images) and splits.mat (795 for training, 654 for test)"


class NYUv2Labeled(NYUImages):
    """The 1,449 labelled images of NYUv2, split by the authors into 795 for training and 654 for test.

        <root>/nyu_depth_v2_labeled.mat      HDF5 with `images`, `depths` and `rawDepths`, axes reversed
        <root>/splits.mat                    `trainNdxs` and `testNdxs`, counted from 1

    The 654 test images are those of `NYUv2`. By default they look alike, too: depth as measured, and the white frame
    around the images is black.

    Args:
        root: The folder of both files.
        split: Part of the split.
        transform: Applied to image and depth, such as `nyuv2_augmentation()`.
        depth: `raw` as measured, with holes; `filled` with the holes filled in.
        black_frame: Set the outer 7 rows (bottom: 6) and 7 columns (right: 8) to 0, as the split folder has them.
        seed: Determines what `transform` draws and each sample's `seed`.

    Raises:
        DatasetNotFoundError: If a file is missing.
        ImportError: If the packages of the extra `nyu` are missing.
        ValueError: If a file is another one than expected.

    Source: of frame and measured depth, cleinc/bts utils/extract_official_train_test_set_from_mat.py.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: NYUSplit = "train",
        transform: PairTransform | None = None,
        *,
        depth: Literal["raw", "filled"] = "raw",
        black_frame: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(split, transform, seed, None)
        self.root = dataset_root(root, EXPECTED)
        self.path, self.black_frame = self.root / "nyu_depth_v2_labeled.mat", black_frame
        for path in (self.path, self.root / "splits.mat"):
            if not path.is_file():
                raise DatasetNotFoundError(f"no such file: {path}", EXPECTED)
        if depth not in ("raw", "filled"):
            raise ValueError(f"depth must be raw or filled, got {depth!r}")
        self._depth_name = "rawDepths" if depth == "raw" else "depths"
        self._file: Any = None
        self.indices = self._indices(self.root / "splits.mat")

    def _indices(self, path: Path) -> list[int]:
        """Places in the file of the images of the split, checked against their number."""
        _, io = modules()
        name = f"{self.split}Ndxs"
        try:
            found = io.loadmat(path)[name].ravel()
        except (ValueError, KeyError, NotImplementedError, TypeError) as error:
            raise ValueError(f"{path}: expected a MATLAB file with {name} ({error})") from error
        indices = [int(i) - 1 for i in found]
        number = len(self._open()["images"])
        if not indices or min(indices) < 0 or max(indices) >= number:
            raise ValueError(f"{path}: expected {name} from 1 to the {number} images of {self.path}; got {found[:5]}")
        return indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file: every data loader worker opens its own."""
        return self.__dict__ | {"_file": None}

    def _open(self) -> Any:
        if self._file is None or self._file[0] != os.getpid():
            try:
                file = modules()[0].File(self.path, "r")
            except OSError as error:
                raise ValueError(f"{self.path}: not a whole HDF5 file ({error}); download it again") from error
            if missing := {"images", self._depth_name} - set(file):
                raise ValueError(f"{self.path}: expected {sorted(missing)} in it, found {sorted(file)[:8]}")
            self._file = os.getpid(), file
        return self._file[1]

    def _pair(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], Float32[Tensor, "h w"], str]:
        file, place = self._open(), self.indices[index]
        name = f"{self.path}[{place}]"
        try:
            image, depth = (torch.from_numpy(file[key][place]) for key in ("images", self._depth_name))
        except OSError as error:
            raise MediaReadError(name, f"damaged ({error})") from error
        image = image.transpose(1, 2).contiguous()
        if self.black_frame:
            inner = torch.zeros_like(image)
            inner[:, 7:474, 7:632] = image[:, 7:474, 7:632]
            image = inner
        return image, depth.T.contiguous().float(), name


def modules() -> tuple[Any, Any]:
    """The modules h5py and scipy.io.

    Raises:
        ImportError: If one is not installed; says how to install it.
    """
    try:
        import h5py
        import scipy.io
    except ImportError as error:
        raise ImportError(
            f"nyu_depth_v2_labeled.mat needs {error.name}; install it with: pip install 'omnistream[nyu]'",
            name=error.name,
        ) from error
    return h5py, scipy.io
