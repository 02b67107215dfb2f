"""Contents of H.264 packets, from their headers: frame or field, display order, random access point.

What a container marks as a key frame may be a recovery point of an intra refresh, a first field or the start of an open
group of pictures. Only the stream itself says where decoding can begin.

Source: ITU-T H.264, 7.3 (syntax), 8.2.1 (picture order count), D.1.8 (recovery point).
"""

from dataclasses import dataclass
from typing import NamedTuple

from omnistream.data.media.access_unit import AccessUnit
from omnistream.data.media.bits import ORIENTATION, BitReader, nal_units, sei_messages
from omnistream.data.media.parameter_sets import ParameterSets, avcc_sets

_SLICE, _IDR, _SEI, _SPS, _PPS = 1, 5, 6, 7, 8
_PARTITION_A = 2
_RECOVERY_POINT = 6
_WITH_CHROMA_FORMAT = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_INTRA_SLICES = frozenset({2, 4, 7, 9})
_HEADER_BYTES = 64
"""Enough for a slice header up to the picture order count."""

_PERIOD = 1 << 40
"""Larger than any picture order count."""


class _Sequence(NamedTuple):
    colour_planes: bool
    frame_num_bits: int
    poc_type: int
    poc_bits: int
    frames_only: bool


class _Slice(NamedTuple):
    first: bool
    intra: bool
    idr: bool
    reference: bool
    frame_num: int
    structure: str
    poc_lsb: int
    poc_delta: int
    sequence: _Sequence


@dataclass
class _Field:
    """A first field whose second one is expected next."""

    structure: str
    frame_num: int


class H264Reader:
    """Reads the packets of one stream in file order.

    Args:
        extradata: The decoder configuration of the container (avcC or Annex B), or empty.
    """

    reorders = has_state = True

    def __init__(self, extradata: bytes) -> None:
        self.notes: set[str] = set()
        self._length_size, sets = avcc_sets(extradata)
        self._sets = ParameterSets()
        self._sequences: dict[int, _Sequence] = {}
        self._pictures: dict[int, tuple[int, bool]] = {}
        for nal in sets if self._length_size else nal_units(extradata, 0):
            self._add_set(nal)
        self._sets.end_of_configuration()
        self._pending: _Field | None = None
        self._period, self._msb, self._lsb = 0, 0, 0

    def __call__(self, data: bytes, is_key: bool) -> AccessUnit:
        """Contents of the next packet; the container's key flag is ignored."""
        self._sets.next_packet()
        recovery, shows, order, intra, idr = False, 0, None, True, False
        for nal in nal_units(data, self._length_size):
            kind = nal[0] & 31
            if kind in (_SPS, _PPS):
                self._add_set(nal)
            elif kind == _SEI:
                messages = dict(sei_messages(nal[1:]))
                self.notes.update({"rotated by the stream"} if ORIENTATION in messages else ())
                recovery = recovery or (
                    _RECOVERY_POINT in messages and _is_exact_recovery_point(messages[_RECOVERY_POINT])
                )
            elif kind in (_SLICE, _IDR, _PARTITION_A):
                part = self._slice(nal)
                intra, idr = intra and part.intra, idr or part.idr
                if part.first and not self._is_second_field(part):
                    shows += 1
                    order = self._display_order(part)
        starts = shows == 1 and (idr or (recovery and intra)) and self._sets.known_at_start()
        return AccessUnit(starts, shows, order)

    def finish(self) -> bool:
        """Whether all fields were paired, so that the frame count is reliable."""
        return self._pending is None

    def _add_set(self, nal: bytes) -> None:
        kind = nal[0] & 31
        if kind not in (_SPS, _PPS):
            return
        bits = BitReader(nal[1:])
        if kind == _SPS:
            number, sequence = _sequence(bits)
            self._sequences[number] = sequence
        else:
            number, sequence_number = bits.unsigned(), bits.unsigned()
            bits.take(1)
            self._pictures[number] = sequence_number, bool(bits.take(1))
        self._sets.add(kind, number, nal)

    def _slice(self, nal: bytes) -> _Slice:
        kind, reference = nal[0] & 31, bool(nal[0] & 0x60)
        bits = BitReader(nal[1:_HEADER_BYTES])
        first = bits.unsigned() == 0
        intra = bits.unsigned() in _INTRA_SLICES
        sequence_number, bottom_delta = self._pictures[bits.unsigned()]
        sequence = self._sequences[sequence_number]
        bits.take(2 if sequence.colour_planes else 0)
        frame_num = bits.take(sequence.frame_num_bits)
        structure = "frame"
        if not sequence.frames_only and bits.take(1):
            structure = "bottom" if bits.take(1) else "top"
        if kind == _IDR:
            bits.unsigned()
        lsb = delta = 0
        if sequence.poc_type == 0:
            lsb = bits.take(sequence.poc_bits)
            delta = bits.signed() if bottom_delta and structure == "frame" else 0
        return _Slice(first, intra, kind == _IDR, reference, frame_num, structure, lsb, delta, sequence)

    def _is_second_field(self, part: _Slice) -> bool:
        """Whether this field completes the previous one: opposite parity and the same frame number.

        Raises:
            IndexError: If a field is unpaired; how it is shown is up to the decoder.
        """
        self.notes.update({"fields"} if part.structure != "frame" else ())
        waiting, self._pending = self._pending, None
        if waiting is None:
            if part.structure != "frame":
                self._pending = _Field(part.structure, part.frame_num)
            return False
        if part.structure in ("frame", waiting.structure) or part.frame_num != waiting.frame_num:
            raise IndexError("an unpaired field")
        return True

    def _display_order(self, part: _Slice) -> int | None:
        if part.idr:
            self._period += 1
            self._msb = self._lsb = 0
        poc_type, poc_bits = part.sequence.poc_type, part.sequence.poc_bits
        if poc_type == 2:
            self._lsb += 1  # display order is file order
            return self._period * _PERIOD + self._lsb
        if poc_type == 1:
            return None
        half, msb = 1 << (poc_bits - 1), self._msb
        if part.poc_lsb < self._lsb and self._lsb - part.poc_lsb >= half:
            msb += 2 * half
        elif part.poc_lsb > self._lsb and part.poc_lsb - self._lsb > half:
            msb -= 2 * half
        if part.reference:
            self._msb, self._lsb = msb, part.poc_lsb
        return self._period * _PERIOD + msb + part.poc_lsb + min(0, part.poc_delta)


def _sequence(bits: BitReader) -> tuple[int, _Sequence]:
    """Id and content of a sequence parameter set."""
    profile = bits.take(8)
    bits.take(16)
    number = bits.unsigned()
    planes = False
    if profile in _WITH_CHROMA_FORMAT:
        chroma_format = bits.unsigned()
        planes = chroma_format == 3 and bool(bits.take(1))
        bits.unsigned(), bits.unsigned(), bits.take(1)  # bit depths, lossless flag
        if bits.take(1):
            for index in range(12 if chroma_format == 3 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    frame_num_bits = bits.unsigned() + 4
    poc_type, poc_bits = bits.unsigned(), 0
    if poc_type == 0:
        poc_bits = bits.unsigned() + 4
    elif poc_type == 1:
        bits.take(1), bits.signed(), bits.signed()
        for _ in range(bits.unsigned()):
            bits.signed()
    bits.unsigned(), bits.take(1), bits.unsigned(), bits.unsigned()  # reference frames, gaps, width, height
    return number, _Sequence(planes, frame_num_bits, poc_type, poc_bits, bool(bits.take(1)))


def _skip_scaling_list(bits: BitReader, length: int) -> None:
    last = scale = 8
    for _ in range(length):
        if scale:
            scale = (last + bits.signed()) % 256
        last = scale or last


def _is_exact_recovery_point(payload: bytes) -> bool:
    """Whether this frame and all frames shown after it decode exactly as from the start of the file."""
    bits = BitReader(payload)
    frames_until_recovered, exact, broken = bits.unsigned(), bits.take(1), bits.take(1)
    return frames_until_recovered == 0 and exact == 1 and broken == 0
