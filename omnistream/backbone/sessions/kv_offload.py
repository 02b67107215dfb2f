"""Layers whose cache is kept in CPU memory and copied to the accelerator one at a time.

Two buffers on the device alternate: while a layer attends on one, the next layer is copied to the other on a side
stream. New frames are written to the stage and copied back.
"""

from dataclasses import replace

import torch

from omnistream.backbone.sessions.kv_store import LayerStore, Placement


class Offload:
    """Copies layers to the device.

    Args:
        device: Where the attention runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stages: list[LayerStore | None] = [None, None]
        self._prefetched: list[int | None] = [None, None]
        self._ready: list[torch.cuda.Event | None] = [None, None]
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def host(self, placement: Placement) -> Placement:
        """Placement of the layers in CPU memory."""
        return replace(placement, device=torch.device("cpu"), token_major=True, pinned=self._stream is not None)

    def fetch(self, layer: int, store: LayerStore, slots: int) -> LayerStore:
        """The layer on the device, with its first `slots` slots as they are in CPU memory."""
        turn = layer % 2
        ready = self._ready[turn]
        if self._prefetched[turn] != layer:
            if self._stream is not None:  # another layer may still be on its way to this stage
                torch.cuda.current_stream(self.device).wait_stream(self._stream)
            self._load(turn, store, slots)
        elif ready is not None:
            torch.cuda.current_stream(self.device).wait_event(ready)
        self._prefetched[turn] = None
        stage = self.stages[turn]
        assert stage is not None
        return stage

    def prefetch(self, layer: int, store: LayerStore, slots: int) -> None:
        """Start copying the layer that will be fetched next; it must not change until then."""
        if self._stream is None:
            return
        turn = layer % 2
        self._prepare(turn, store)
        # Everything queued so far includes the last use of this stage and all copies back.
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            self._load(turn, store, slots)
            self._ready[turn] = self._stream.record_event()
        self._prefetched[turn] = layer

    def save(self, store: LayerStore, stage: LayerStore, slot: int, rows: slice) -> None:
        """Copy one slot back to CPU memory."""
        store.copy_slots(stage, slot, slot + 1, rows)

    def finish(self) -> None:
        """Wait for all copies back before the CPU reads them."""
        if self._stream is not None:
            torch.cuda.synchronize(self.device)

    @property
    def num_bytes(self) -> int:
        """Memory held on the device."""
        return sum(stage.num_bytes for stage in self.stages if stage is not None)

    def _prepare(self, turn: int, store: LayerStore) -> None:
        stage = self.stages[turn]
        if stage is None or stage.shape != store.shape:
            self.stages[turn] = None  # frees the smaller one first
            self.stages[turn] = store.empty_like(replace(store.placement, device=self.device, pinned=False))

    def _load(self, turn: int, store: LayerStore, slots: int) -> None:
        self._prepare(turn, store)
        stage = self.stages[turn]
        assert stage is not None
        stage.copy_slots(store, 0, slots)
