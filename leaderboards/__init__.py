"""What a run found, and how runs compare: records and statistics. Needs no torch.

`load(RUNS)` and `load_samples(RUNS)` give data frames. Light to import: pandas is imported when
they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leaderboards.frames import load, load_samples

__all__ = ["load", "load_samples"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'leaderboards' has no attribute '{name}'")
    from leaderboards import frames

    return getattr(frames, name)
