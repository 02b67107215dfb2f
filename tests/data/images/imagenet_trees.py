"""Small ImageNets in the trees of torchvision, Kaggle and the original download."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

CLASSES = {
    "n01440764": "tench, Tinca tinca",
    "n01443537": "goldfish, Carassius auratus",
    "n02102040": "English springer",
}
WNIDS = tuple(CLASSES)
COLOURS = ((220, 40, 40), (40, 200, 40), (40, 40, 220))
VAL_CLASSES = (2, 0, 1, 1, 2, 0, 0)
"""Labels of the validation images 1 to 7."""


def write_image(path: Path, label: int, number: int, size: tuple[int, int] = (40, 50)) -> None:
    """A noisy image in the colour of its class."""
    noise = np.random.default_rng([label, number]).integers(-30, 30, (*size, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.array(COLOURS[label]) + noise).clip(0, 255).astype(np.uint8)).save(path, "JPEG", quality=95)


def write_train(folder: Path, per_class: int = 4) -> None:
    """`train/<wnid>/<wnid>_<number>.JPEG`."""
    for label, wnid in enumerate(WNIDS):
        for number in range(per_class):
            write_image(folder / "train" / wnid / f"{wnid}_{10 * number + 7}.JPEG", label, number)


def val_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}"


def write_folders(root: Path, per_class: int = 4) -> Path:
    """Class folders in train and val."""
    write_train(root, per_class)
    for number, label in enumerate(VAL_CLASSES, start=1):
        write_image(root / "val" / WNIDS[label] / f"{val_name(number)}.JPEG", label, 100 + number)
    return root


def write_flat_val(folder: Path) -> None:
    for number, label in enumerate(VAL_CLASSES, start=1):
        write_image(folder / "val" / f"{val_name(number)}.JPEG", label, 100 + number)


def write_kaggle(root: Path) -> Path:
    """What unpacking imagenet-object-localization-challenge.zip gives."""
    inner = root / "ILSVRC" / "Data" / "CLS-LOC"
    write_train(inner)
    write_flat_val(inner)
    (inner / "test").mkdir()
    rows = [f"{val_name(n)},{WNIDS[c]} 10 20 300 200 {WNIDS[c]} 1 2 3 4 " for n, c in enumerate(VAL_CLASSES, start=1)]
    rows = rows[::-1]  # Kaggle's file is in no order
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")
    (root / "LOC_synset_mapping.txt").write_text("".join(f"{wnid} {name}\n" for wnid, name in CLASSES.items()))
    return root


IDS = {"n01440764": 3, "n01443537": 1, "n02102040": 2}
"""ILSVRC2012_ID, which is not the order of the WordNet ids."""


def write_devkit_tree(root: Path) -> Path:
    """train of the original tars, the flat val, and the unpacked devkit."""
    write_train(root)
    write_flat_val(root)
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    lines = [str(IDS[WNIDS[label]]) for label in VAL_CLASSES]
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(lines) + "\n")
    kind = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "f8")]
    kind += [("children", "O"), ("wordnet_height", "f8"), ("num_train_images", "f8")]
    wnids = sorted(IDS, key=IDS.__getitem__)
    rows = [(IDS[wnid], wnid, CLASSES[wnid], "a fish", 0, np.zeros(0), 0, 1300) for wnid in wnids]
    rows.append((4, "n00001740", "entity", "all", 3, np.array([1.0, 2.0, 3.0]), 2, 0))
    savemat(data / "meta.mat", {"synsets": np.array(rows, dtype=kind)[:, None]})
    return root
