"""Parameter sets of H.264 and HEVC, and whether a decoder that skips packets still has all of them."""


class ParameterSets:
    """The sets that a decoder has, by type and id.

    A decoder that starts at a later packet knows the container's sets, those of the first packet, and those of the
    packet itself.
    """

    def __init__(self) -> None:
        self._current: dict[tuple[int, int], bytes] = {}
        self._in_packet: set[tuple[int, int]] = set()
        self._changed, self._packets = False, 0

    def end_of_configuration(self) -> None:
        """Count the sets added so far as the container's."""
        self._in_packet, self._changed = set(), False

    def next_packet(self) -> None:
        """Start the next packet."""
        self._in_packet = set()
        self._packets += 1

    def add(self, kind: int, number: int, content: bytes) -> None:
        """Add a set."""
        key, content = (kind, number), content.rstrip(b"\0")
        # A decoder that skips packets misses sets that come after the first packet or replace the container's.
        if self._current.get(key) != content and (self._packets > 1 or key in self._current):
            self._changed = True
        self._current[key] = content
        self._in_packet.add(key)

    def known_at_start(self) -> bool:
        """Whether a decoder that starts at this packet has all sets."""
        return not self._changed or self._in_packet == set(self._current)


def avcc_sets(extradata: bytes) -> tuple[int, list[bytes]]:
    """Length size and parameter sets of an avcC record; 0 and an empty list if it is not one.

    Source: ISO/IEC 14496-15, 5.3.3.1.
    """
    if len(extradata) < 7 or extradata[0] != 1:
        return 0, []
    sets, at = [], 5
    for mask in (31, 255):
        count, at = extradata[at] & mask if at < len(extradata) else 0, at + 1
        for _ in range(count):
            length = int.from_bytes(extradata[at : at + 2], "big")
            sets.append(extradata[at + 2 : at + 2 + length])
            at += 2 + length
    return (extradata[4] & 3) + 1, sets


def hvcc_sets(extradata: bytes) -> tuple[int, list[bytes]]:
    """Length size and parameter sets of an hvcC record; 0 and an empty list if it is not one.

    Source: ISO/IEC 14496-15, 8.3.3.1.
    """
    if len(extradata) < 23 or extradata[:3] == b"\0\0\0" or extradata[:3] == b"\0\0\1":
        return 0, []
    sets, at = [], 23
    for _ in range(extradata[22]):
        count = int.from_bytes(extradata[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            length = int.from_bytes(extradata[at : at + 2], "big")
            sets.append(extradata[at + 2 : at + 2 + length])
            at += 2 + length
    return (extradata[21] & 3) + 1, sets
