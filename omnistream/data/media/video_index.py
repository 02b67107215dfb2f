"""Index for exact random access: where every frame of a video is in its file, and from where it can be decoded.

A frame is identified by the packet in which it begins, because timestamps are missing, repeated or guessed in many
files. Timestamps only help the demuxer to get near a packet; the checksum identifies it.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from omnistream.data.media.packet_scan import PacketScan

NO_STAMP = -(2**63)
"""Stands for a missing timestamp."""


@dataclass(frozen=True, eq=False)
class VideoIndex:
    """Packets are numbered in file order, frames (positions) in display order."""

    checksums: np.ndarray
    """CRC-32 of every packet."""
    order: np.ndarray
    """The packet of every frame; empty if the decoder does not report it, so that frames can only be counted."""
    starts: np.ndarray
    """Packets at which decoding can begin, in increasing order; the first is 0."""
    stamps: np.ndarray
    """Presentation and decoding timestamp of each start, [starts, 2]."""

    @cached_property
    def rank(self) -> np.ndarray:
        """The position of every packet's frame; -1 if it shows none."""
        rank = np.full(len(self.checksums), -1, dtype=np.int32)
        rank[self.order] = np.arange(len(self.order), dtype=np.int32)
        return rank

    @cached_property
    def reach(self) -> np.ndarray:
        """The last position among the frames of each packet and all packets before it."""
        return np.maximum.accumulate(self.rank)

    @cached_property
    def start_ranks(self) -> np.ndarray:
        """The first position that can be decoded from each start."""
        ranks = self.rank[self.starts]
        ranks[0] = 0  # the first packet may be hidden
        return ranks

    @property
    def counts_only(self) -> bool:
        """Whether the decoder does not report the packets of its frames."""
        return len(self.order) == 0

    def start_for(self, position: int) -> int:
        """The latest packet from which this frame can be decoded."""
        return int(self.starts[np.searchsorted(self.start_ranks, position, side="right") - 1])

    def first_position(self, start: int) -> int:
        """The first position that can be decoded from this start."""
        return int(self.start_ranks[np.searchsorted(self.starts, start)])

    def stamps_of(self, start: int) -> tuple[int, int]:
        """Presentation and decoding timestamp of this start."""
        pts, dts = self.stamps[np.searchsorted(self.starts, start)].tolist()
        return pts, dts

    def from_the_start_only(self) -> "VideoIndex":
        """The index for a file in which the demuxer does not find packets again."""
        return replace(self, starts=self.starts[:1], stamps=self.stamps[:1])


def make_index(scan: PacketScan, order: np.ndarray) -> VideoIndex:
    """The index of a scanned file.

    Args:
        scan: Its packets.
        order: The packet of every frame in display order.
    """
    index = VideoIndex(
        np.array(scan.checksums, dtype=np.uint32), order.astype(np.int32), np.zeros(1, np.int32), np.zeros((1, 2))
    )
    starts = _starts(scan, index)
    stamps = [(_stamp(scan.pts[number]), _stamp(scan.dts[number])) for number in starts]
    return replace(index, starts=np.array(starts, np.int32), stamps=np.array(stamps, np.int64))


def _starts(scan: PacketScan, index: VideoIndex) -> list[int]:
    """Packets at which decoding can begin: 0, and those before which all earlier packets' frames are shown."""
    starts = [0]
    if scan.units is None or len(index.order) == 0:
        return starts
    for number, unit in enumerate(scan.units[1:], 1):
        rank = index.rank[number]
        has_stamp = scan.pts[number] is not None or scan.dts[number] is not None
        if unit.starts and has_stamp and rank > index.reach[number - 1]:
            starts.append(number)
    return starts


def _stamp(stamp: int | None) -> int:
    return NO_STAMP if stamp is None else stamp
