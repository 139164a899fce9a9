"""The GPU model zoo: several models resident on one device, under a memory budget."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from robustbench_c.errors import ModelError
from robustbench_c.zoo.devices import move, parse_device
from robustbench_c.zoo.hashing import byte_count
from robustbench_c.zoo.loading import LoadedModel, load


@dataclass(frozen=True)
class CacheStatistics:
    """What a cache has done so far.

    Attributes:
        hits: Requests answered by a model already on the device.
        loads: Models read from disk.
        returns: Models brought back from the host's memory.
        evictions: Models sent to the host's memory.
        resident_bytes: Parameters and buffers now on the device.
    """

    hits: int = 0
    loads: int = 0
    returns: int = 0
    evictions: int = 0
    resident_bytes: int = 0


@dataclass
class _Entry:
    model: LoadedModel
    size: int
    resident: bool = False
    leases: int = 0


class ModelCache:
    """Keeps models on a device; the least recently used goes to the host, not back to disk.

    Attack, certification and training code in one process share a cache, from any thread. A file
    is read once: a cache does not notice that it changes on disk.

    Args:
        device: Where models are used. On "cpu" the budget is counted all the same.
        budget_bytes: Bytes of parameters and buffers allowed on the device; None for no limit.
    """

    def __init__(self, device: torch.device | str = "cpu", budget_bytes: int | None = None) -> None:
        self.device = parse_device(device)
        self.budget_bytes = budget_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._lock = threading.RLock()
        self._statistics = CacheStatistics()

    @property
    def statistics(self) -> CacheStatistics:
        """What the cache has done so far."""
        with self._lock:
            return self._statistics

    def get(self, name_or_path: str, **load_args: object) -> LoadedModel:
        """Return a model on the device, for use before the next request.

        A later request may move the model away again: hold it with `lease` while it works.

        Args:
            name_or_path: As for `load`.
            **load_args: As for `load`, without the device.

        Raises:
            ModelError: As for `load`; or the model does not fit into the budget.
        """
        with self._lock:
            return self._place(name_or_path, load_args).model

    @contextmanager
    def lease(self, name_or_path: str, **load_args: object) -> Iterator[LoadedModel]:
        """Hold a model on the device: it is not moved before the block ends."""
        with self._lock:
            entry = self._place(name_or_path, load_args)
            entry.leases += 1
        try:
            yield entry.model
        finally:
            with self._lock:
                entry.leases -= 1

    def _place(self, name_or_path: str, load_args: dict[str, object]) -> _Entry:
        key = repr((name_or_path, sorted(load_args.items())))
        entry = self._entries.get(key)
        if entry is None:
            model = load(name_or_path, "cpu", **load_args)  # type: ignore[arg-type]  # load checks
            entry = _Entry(model, byte_count(model.module))
            self._count(loads=1)
        elif entry.resident:
            self._count(hits=1)
        else:
            self._count(returns=1)
        if not entry.resident:
            self._make_room(entry)
            move(entry.model.module, self.device, entry.model.name)
            entry.resident = True
            self._count(resident_bytes=entry.size)
        self._entries[key] = entry
        self._entries.move_to_end(key)
        return entry

    def _make_room(self, newcomer: _Entry) -> None:
        if self.budget_bytes is None:
            return
        name = newcomer.model.name
        if newcomer.size > self.budget_bytes:
            raise ModelError(
                f"{name} takes {newcomer.size} bytes; the model cache holds {self.budget_bytes}"
            )
        leased = [entry for entry in self._entries.values() if entry.leases]
        if newcomer.size + sum(entry.size for entry in leased) > self.budget_bytes:
            users = ", ".join(entry.model.name for entry in leased)
            raise ModelError(
                f"{name} takes {newcomer.size} bytes; the model cache holds {self.budget_bytes}, "
                f"and in use are: {users}"
            )
        for entry in self._entries.values():
            if self._statistics.resident_bytes + newcomer.size <= self.budget_bytes:
                return
            if entry.resident and not entry.leases:
                entry.model.module.to("cpu")
                entry.resident = False
                self._count(evictions=1, resident_bytes=-entry.size)

    def _count(self, **changes: int) -> None:
        now = self._statistics
        self._statistics = replace(
            now, **{field: getattr(now, field) + change for field, change in changes.items()}
        )
