"""Sequences whose items are computed."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

ItemT = TypeVar("ItemT", covariant=True)


class ComputedSequence(Sequence[ItemT]):
    """A sequence that makes an item when it is asked for it, and a list of items for a slice."""

    @abstractmethod
    def _item(self, index: int) -> ItemT:
        """The item at an index from 0 to the length."""

    @overload
    def __getitem__(self, index: int) -> ItemT: ...
    @overload
    def __getitem__(self, index: slice) -> list[ItemT]: ...
    def __getitem__(self, index: int | slice) -> ItemT | list[ItemT]:
        if isinstance(index, slice):
            return [self._item(position) for position in range(len(self))[index]]
        return self._item(range(len(self))[index])
