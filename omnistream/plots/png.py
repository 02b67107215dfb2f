"""Images as PNG files with a title and a description."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def encode_png(image: UInt8[np.ndarray, "H W 3"], title: str = "", caption: str = "") -> bytes:
    """The image as a PNG file; title and caption are stored in its text fields `Title` and `Description`."""
    info = PngInfo()
    info.add_itxt("Title", title)
    info.add_itxt("Description", caption)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True, pnginfo=info)
    return buffer.getvalue()
