"""Which packets of a stream show a frame, and at which of them decoding can begin, for each codec.

Streams of other codecs are decoded once to find their frames, and always from the start.
"""

from collections.abc import Callable

from omnistream.data.media.access_unit import AccessUnit, UnitReader
from omnistream.data.media.bits import BitReader, start_codes
from omnistream.data.media.h264 import H264Reader
from omnistream.data.media.hevc import HevcReader

_INTRA_ONLY = {"mjpeg", "prores", "dnxhd", "huffyuv", "ffvhuff", "utvideo", "png", "rawvideo", "v210", "jpeg2000"}
_FLAGGED = {"ffv1", "flv1", "h263", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2"}
"""One frame per packet, in order. The container marks the key frames; the decoder confirms one when it starts there."""


class _InOrder:
    """A codec whose packets show one frame each, in file order."""

    reorders = has_state = False

    def __init__(self, facts: Callable[[bytes, bool], AccessUnit]) -> None:
        self._facts = facts
        self.notes: set[str] = set()

    def __call__(self, data: bytes, is_key: bool) -> AccessUnit:
        """Contents of the next packet."""
        return self._facts(data, is_key)

    def finish(self) -> bool:
        """Always true."""
        return True


class _Reordering(_InOrder):
    reorders = True


def _intra(data: bytes, is_key: bool) -> AccessUnit:
    return AccessUnit(True, 1)


def _flagged(data: bytes, is_key: bool) -> AccessUnit:
    return AccessUnit(is_key, 1)


def _gif(data: bytes, is_key: bool) -> AccessUnit:
    return AccessUnit(False, 1)  # later images are drawn over the ones before


def _vp8(data: bytes, is_key: bool) -> AccessUnit:
    """RFC 6386, 9.1: bit 0 of a frame is clear in key frames, bit 4 is set in those that are shown."""
    return AccessUnit(not data[0] & 1, data[0] >> 4 & 1)


def _vp9(data: bytes, is_key: bool) -> AccessUnit:
    """VP9 bitstream specification, annex B (superframes) and 6.2 (frame header)."""
    starts, shows = False, 0
    for index, frame in enumerate(_vp9_frames(data)):
        bits = BitReader(frame[:2])
        if bits.take(2) != 2:
            raise IndexError("not a VP9 frame")
        if bits.take(1) + 2 * bits.take(1) == 3:
            bits.take(1)
        shows_existing = bits.take(1)
        is_inter = shows_existing or bits.take(1)
        starts = starts or (index == 0 and not is_inter)
        shows += 1 if shows_existing else bits.take(1)
    return AccessUnit(starts, shows)


def _vp9_frames(data: bytes) -> list[bytes]:
    """The frames of a superframe; the packet itself if it is not one."""
    marker = data[-1]
    count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
    size = 2 + count * width
    if marker & 0xE0 != 0xC0 or len(data) < size or data[-size] != marker:
        return [data]
    frames, at = [], 0
    for number in range(count):
        place = len(data) - size + 1 + number * width
        length = int.from_bytes(data[place : place + width], "little")
        frames.append(data[at : at + length])
        at += length
    return [frame for frame in frames if frame]


_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6


def _av1(data: bytes, is_key: bool) -> AccessUnit:
    """AV1 specification, 5.3 (units), 5.9.2 (frame header), 7.6.1 (random access points)."""
    at, has_sequence, is_first, starts = 0, False, True, False
    while at < len(data):
        header = data[at]
        kind, has_extension, has_size = header >> 3 & 15, header >> 2 & 1, header >> 1 & 1
        at += 1 + has_extension
        length, at = _leb128(data, at) if has_size else (len(data) - at, at)
        if kind == _SEQUENCE_HEADER:
            has_sequence = True
        elif kind in (_FRAME_HEADER, _FRAME) and is_first:
            first = data[at]  # shows an existing frame (1 bit), kind of frame (2 bits), is shown (1 bit)
            starts, is_first = has_sequence and first >> 4 == 0b0001, False
        at += length
    return AccessUnit(starts, 1)


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and the offset after it."""
    value = 0
    for place in range(8):
        value |= (data[at + place] & 127) << 7 * place
        if data[at + place] < 128:
            return value, at + place + 1
    raise IndexError("a number of more than 8 bytes")


_SHORTEST_VOP = 12
"""Bytes; shorter packets may be placeholders for packed frames and show nothing."""


def _mpeg4(data: bytes, is_key: bool) -> AccessUnit:
    """ISO/IEC 14496-2, 6.2.5: the type of a VOP follows its start code B6; 0 is intra."""
    vops = [data[at + 1] >> 6 for at in start_codes(data) if data[at] == 0xB6]
    if len(vops) != 1 or len(data) < _SHORTEST_VOP:
        raise IndexError("packed or empty frames")
    return AccessUnit(vops[0] == 0, 1)


def _mpeg2(data: bytes, is_key: bool) -> AccessUnit:
    """ISO/IEC 13818-2, 6.2.2.1, 6.2.3 and 6.2.3.1: sequence header B3, picture 00, coding extension B5 with id 8."""
    pictures, structures, has_sequence = [], [], False
    for at in start_codes(data):
        if data[at] == 0xB3:
            has_sequence = True
        elif data[at] == 0x00:
            pictures.append(data[at + 2] >> 3 & 7)
        elif data[at] == 0xB5 and data[at + 1] >> 4 == 8:
            structures.append(data[at + 3] & 3)
    if not (len(pictures) == 1 and structures in ([], [3])) and not (
        len(pictures) == 2 and sorted(structures) == [1, 2]
    ):
        raise IndexError("unpaired fields")
    return AccessUnit(has_sequence and pictures[0] == 1, 1)


_FACTS: dict[str, Callable[[bytes, bool], AccessUnit]] = {"gif": _gif, "vp8": _vp8, "vp9": _vp9, "av1": _av1}
_FACTS_REORDERING = {"mpeg4": _mpeg4, "mpeg1video": _mpeg2, "mpeg2video": _mpeg2}


def unit_reader(codec: str, extradata: bytes) -> UnitReader | None:
    """The reader for a codec's packets; None if streams of this codec have to be decoded.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: The decoder configuration in the container.
    """
    if codec == "h264":
        return H264Reader(extradata)
    if codec == "hevc":
        return HevcReader(extradata)
    if codec in _FACTS_REORDERING:
        return _Reordering(_FACTS_REORDERING[codec])
    facts = _FACTS.get(codec) or (_intra if codec in _INTRA_ONLY else _flagged if codec in _FLAGGED else None)
    return None if facts is None else _InOrder(facts)
