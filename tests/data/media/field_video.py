"""H.264 whose frames are coded either as one picture or as two fields (PAFF), which FFmpeg's encoders do not write.

Macroblocks are copied raw (I_PCM), or skipped if they equal those of the previous field of the same parity, so later
frames depend on earlier ones. Written after ITU-T H.264, 7.3.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.data.media.video_files import NUM_FRAMES, RATE, numbered_image

_SIZE = 64
_GROUP = 8
_GREY = 128


class _Bits:
    def __init__(self) -> None:
        self.text = ""

    def put(self, value: int, count: int) -> None:
        self.text += format(value, f"0{count}b") if count else ""

    def code(self, value: int) -> None:
        """Unsigned Exp-Golomb."""
        self.put(value + 1, 2 * (value + 1).bit_length() - 1)

    def align(self) -> None:
        self.text += "0" * (-len(self.text) % 8)

    def unit(self, header: int) -> bytes:
        """The finished unit with its start code and emulation prevention bytes."""
        self.text += "1"
        self.align()
        payload, out, zeros = int(self.text, 2).to_bytes(len(self.text) // 8, "big"), bytearray(), 0
        for byte in payload:
            if zeros == 2 and byte <= 3:
                out.append(3)
                zeros = 0
            out.append(byte)
            zeros = zeros + 1 if byte == 0 else 0
        return b"\0\0\0\1" + bytes([header]) + bytes(out)


def _sets() -> bytes:
    sequence = _Bits()
    for value in (77, 0, 30):
        sequence.put(value, 8)
    for value in (0, 0, 0, 4, 2):  # number, frame number in 4 bits, order type 0 in 8 bits, 2 reference frames
        sequence.code(value)
    sequence.put(0, 1)
    sequence.code(_SIZE // 16 - 1)
    sequence.code(_SIZE // 32 - 1)
    sequence.put(0b00100, 5)  # fields, no MBAFF, direct 8x8, no cropping, no VUI
    picture = _Bits()
    picture.code(0)
    picture.code(0)
    picture.put(0, 2)
    for value in (0, 0, 0):
        picture.code(value)
    picture.put(0, 3)
    for value in (0, 0, 0):
        picture.code(value)
    picture.put(0b100, 3)
    return sequence.unit(0x67) + picture.unit(0x68)


def _picture(luma: np.ndarray, before: np.ndarray | None, number: int, parity: int | None, *, is_idr: bool) -> bytes:
    """One slice: a frame (`parity` None) or a field; intra if `before` is None."""
    bits, intra = _Bits(), before is None
    bits.code(0)
    bits.code(7 if intra else 5)
    bits.code(0)
    bits.put(number % _GROUP, 4)
    bits.put(0 if parity is None else 1, 1)
    if parity is not None:
        bits.put(parity, 1)
    if is_idr:
        bits.code(number // _GROUP % 2)
    bits.put(2 * (number % _GROUP) + (parity or 0), 8)
    if not intra:
        bits.put(0, 2)
    bits.put(0, 2 if is_idr else 1)
    bits.code(0)
    bits.code(1)  # no deblocking
    _macroblocks(bits, luma, before)
    return bits.unit(0x65 if is_idr else 0x61)


def _macroblocks(bits: _Bits, luma: np.ndarray, before: np.ndarray | None) -> None:
    skipped = 0
    for y in range(0, luma.shape[0], 16):
        for x in range(0, luma.shape[1], 16):
            block = luma[y : y + 16, x : x + 16]
            if before is not None and np.array_equal(block, before[y : y + 16, x : x + 16]):
                skipped += 1
                continue
            if before is not None:
                bits.code(skipped)
                skipped = 0
            bits.code(25 if before is None else 30)
            bits.align()
            samples = block.tobytes() + bytes([_GREY]) * 128
            bits.put(int.from_bytes(samples, "big"), 8 * len(samples))
    if skipped:
        bits.code(skipped)


def _coded(number: int) -> list[bytes]:
    """The pictures of one frame: two fields, or a single picture for every third frame."""
    image, is_first = numbered_image(number, _SIZE, _SIZE)[..., 0], number % _GROUP == 0
    luma = np.clip(image, 16, 235)
    before = None if is_first else np.clip(numbered_image(number - 1, _SIZE, _SIZE)[..., 0], 16, 235)
    if number % 3 == 2:
        return [_picture(luma, before, number, None, is_idr=is_first)]
    fields = []
    for parity in (0, 1):
        earlier = None if before is None else before[parity::2]
        fields.append(_picture(luma[parity::2], earlier, number, parity, is_idr=is_first and parity == 0))
    return fields


def write_field_video(path: Path, *, paired: bool = False, stamps: bool = True) -> Path:
    """A video with a packet per field, or per frame if `paired`; in a container chosen by suffix.

    Args:
        path: Where to.
        paired: Both fields of a frame share a packet.
        stamps: Give the second field a stamp of its own, as from a raw stream copied at twice the rate.
    """
    raw = path.with_suffix(".264")
    frames = [_coded(number) for number in range(NUM_FRAMES)]
    frames = [[_sets() + frame[0], *frame[1:]] if n % _GROUP == 0 else frame for n, frame in enumerate(frames)]
    raw.write_bytes(b"".join(b"".join(frame) for frame in frames))
    if path.suffix == ".264":
        return path
    with av.open(str(raw), format="h264") as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.time_base = Fraction(1, 2 * RATE)
        for number, frame in enumerate(frames):
            for half, data in enumerate([b"".join(frame)] if paired else frame):
                packet = av.Packet(data)
                packet.time_base, packet.stream = Fraction(1, 2 * RATE), stream
                packet.pts = packet.dts = 2 * number + half
                packet.duration = 2 if paired or len(frame) == 1 else 1
                packet.is_keyframe = number % _GROUP == 0 and half == 0
                target.mux(packet)
    return path
