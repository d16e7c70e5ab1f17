"""A key-value cache that grows in place: appending a token copies nothing that is there already."""

from __future__ import annotations

from typing import Any

from transformers.cache_utils import Cache, DynamicLayer


class GrowingLayer(DynamicLayer):
    """`DynamicLayer` on a buffer that doubles; transformers' own concatenates the whole cache at every token."""

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Append (B, heads, new, dim) and return all keys and values so far, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
            self._buffers = (self.keys, self.values)
        old = self.get_seq_length()
        new = old + key_states.shape[-2]
        if new > self._buffers[0].shape[-2] or self._buffers[0].shape[0] != key_states.shape[0]:
            room = max(64, 2 * new)
            self._buffers = (self._grown(self.keys, key_states, room), self._grown(self.values, value_states, room))
        keys, values = self._buffers
        keys[:, :, old:new] = key_states
        values[:, :, old:new] = value_states
        self.keys, self.values = keys[:, :, :new], values[:, :, :new]
        return self.keys, self.values

    @staticmethod
    def _grown(filled: Any, like: Any, room: int) -> Any:
        batch, heads, _, size = like.shape
        buffer = like.new_empty(batch, heads, room, size)
        buffer[:, :, : filled.shape[-2]] = filled
        return buffer

    def batch_select_indices(self, indices: Any) -> None:
        """Keep these rows."""
        super().batch_select_indices(indices)
        self._buffers = (self.keys, self.values)


def growing_cache(layers: int) -> Cache:
    """An empty cache for a model of `layers` layers."""
    layer: Any = GrowingLayer
    return Cache(layers=[layer() for _ in range(layers)])
