"""Contents of HEVC packets, from the headers of their NAL units.

Source: ITU-T H.265, 7.3.1.2 (unit header), 7.4.2.2 and table 7-1 (unit types), 8.1.3 (skipped leading pictures).
"""

import zlib

from omnistream.data.media.access_unit import AccessUnit
from omnistream.data.media.bits import ORIENTATION, nal_units, sei_messages
from omnistream.data.media.parameter_sets import ParameterSets, hvcc_sets

_LEADING = (8, 9)
"""Pictures shown before a random access picture that depend on earlier ones (RASL)."""
_BROKEN_LINK, _IDR, _CRA = (16, 17, 18), (19, 20), 21
_SETS = (32, 33, 34)
_END = (36, 37)
_LAST_PICTURE = 31
_SEI = 39


class HevcReader:
    """Reads the packets of one stream in file order.

    Args:
        extradata: The decoder configuration of the container (hvcC or Annex B), or empty.
    """

    reorders = has_state = True

    def __init__(self, extradata: bytes) -> None:
        self.notes: set[str] = set()
        self._length_size, sets = hvcc_sets(extradata)
        self._sets = ParameterSets()
        for nal in sets if self._length_size else nal_units(extradata, 0):
            self._add_set(nal)
        self._sets.end_of_configuration()
        self._ended, self._skips_leading = True, True

    def __call__(self, data: bytes, is_key: bool) -> AccessUnit:
        """Contents of the next packet; the container's key flag is ignored."""
        self._sets.next_packet()
        starts, shows = False, 0
        for nal in nal_units(data, self._length_size):
            kind, is_base = nal[0] >> 1 & 63, not (nal[0] & 1 or nal[1] >> 3)
            if not is_base:
                continue
            if kind in _SETS:
                self._add_set(nal)
            elif kind == _SEI:
                messages = dict(sei_messages(nal[2:]))
                self.notes.update({"rotated by the stream"} if ORIENTATION in messages else ())
            elif kind in _END:
                self._ended = True
            elif kind <= _LAST_PICTURE and nal[2] & 0x80:  # the first slice of a picture
                starts = self._begin(kind)
                shows += not (kind in _LEADING and self._skips_leading)
        return AccessUnit(starts and shows == 1 and self._sets.known_at_start(), shows)

    def finish(self) -> bool:
        """Always true."""
        return True

    def _begin(self, kind: int) -> bool:
        """Start a picture and return whether it is a random access picture."""
        is_start = kind in _BROKEN_LINK or kind in _IDR or kind == _CRA
        if is_start:
            self._skips_leading = kind != _CRA or self._ended
            self._ended = False
        return is_start

    def _add_set(self, nal: bytes) -> None:
        kind = nal[0] >> 1 & 63
        if kind in _SETS:
            # The id of a set is hard to parse, so sets are identified by content. A replaced set then counts as another
            # one: decoding starts at fewer packets, never at a wrong one.
            self._sets.add(kind, zlib.crc32(nal.rstrip(b"\0")), nal)
