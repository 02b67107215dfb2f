"""7-Scenes, tiny: sequences of 640x480 in the authors' files."""

import numpy as np
from PIL import Image

SIZE = (480, 640)
DEPTH = np.array([[585.0, 0, 320], [0, 585, 240], [0, 0, 1]])
COLOR = np.array([[525.0, 0, 320], [0, 525, 240], [0, 0, 1]])


def three_digits(value):
    """`7.0352107e-001`, as the authors' program writes numbers."""
    mantissa, exponent = f"{value: .7e}".split("e")
    return f"{mantissa}e{exponent[0]}{int(exponent[1:]):03d}"


def write_pose(path, pose):
    path.write_text("".join("".join(f"{three_digits(value)}\t" for value in row) + "\n" for row in pose))


def image(number):
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = 5 * number, np.arange(SIZE[1]) // 4
    return pixels


def write_sequence(folder, room, numbers, registered=False):
    """Frames of a `Room`; `registered` adds depth as the colour camera sees it."""
    folder.mkdir(parents=True)
    for number in numbers:
        stem = folder / f"frame-{number:06d}"
        Image.fromarray(image(number)).save(f"{stem}.color.png", compress_level=1)
        for kind, camera in [("depth", DEPTH)] + [("depth.proj", COLOR)] * registered:
            depth = room.millimetres(number, SIZE, camera)
            depth[0, :5], depth[1, :5] = 0, 65535
            Image.fromarray(depth).save(f"{stem}.{kind}.png", compress_level=1)
        write_pose(folder / f"{stem.name}.pose.txt", room.pose(number))


def write_splits(scene, train, test):
    for name, numbers in (("TrainSplit.txt", train), ("TestSplit.txt", test)):
        (scene / name).write_text("".join(f"sequence{number}\r\n" for number in numbers))
