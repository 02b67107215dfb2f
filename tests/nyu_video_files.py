"""Raw videos of NYUv2 in the authors' files."""

import numpy as np

SIZE = (480, 640)
NOTHING = 2047
START = 1294886360


def write_disparity(path, disparity, order="<"):
    """A binary PGM of 16 bits; the authors' have the bytes in little-endian order, against the format."""
    height, width = disparity.shape
    path.write_bytes(b"P5 %d %d 65535\n" % (width, height) + disparity.astype(f"{order}u2").tobytes())


def write_image(path, image):
    height, width = image.shape[:2]
    path.write_bytes(b"P6 %d %d 255\n" % (width, height) + image.astype(np.uint8).tobytes())


def name(kind, seconds):
    """`d-1294886362.665769-3143255701.pgm`, or r- and ppm."""
    return f"{kind}-{START + seconds:.6f}-{int(3e9 + 6e7 * seconds)}.{'pgm' if kind == 'd' else 'ppm'}"


def write_room(folder, depth_times, image_times, disparity=917):
    """A wall 2.002 m away; images whose red tells their number. Other files lie beside them, as in the archives."""
    folder.mkdir(parents=True)
    for seconds in depth_times:
        write_disparity(folder / name("d", seconds), np.full(SIZE, disparity, np.uint16))
    for number, seconds in enumerate(image_times):
        image = np.zeros((*SIZE, 3))
        image[..., 0], image[..., 1] = 10 * number, np.arange(SIZE[1]) // 4
        write_image(folder / name("r", seconds), image)
    (folder / f"a-{START}.011060-3164794231.dump").write_bytes(bytes(48))
    (folder / "INDEX.txt").write_text("\n")
