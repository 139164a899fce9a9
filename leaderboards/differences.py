"""Where two manifests are about different runs, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from leaderboards.manifest import Manifest

_LONGEST = 60


def differences(there: Manifest, here: Manifest) -> list[str]:
    """Return where the identities of two runs differ, one line for each; none where they agree.

    Args:
        there: Of the run on record.
        here: Of the run that is asked for.
    """
    old, new = there.identity_fields(), here.identity_fields()
    found: list[str] = []
    for name in (name for name in old if old[name] != new[name]):
        if name == "protocol_sha256":
            protocols = (each.protocol.model_dump(mode="json") for each in (there, here))
            found += _inside(name.removesuffix("_sha256"), *protocols)
        elif name == "data.ids":
            found.append(_told(name, there.data.ids, here.data.ids))
        else:
            found.append(_told(name, old[name], new[name]))
    return found


def _inside(name: str, old: Any, new: Any) -> Iterator[str]:
    """Where two JSON values differ; of lists of steps by their names."""
    if name == "protocol.steps":
        old, new = ({step["name"]: step for step in steps} for steps in (old, new))
        if list(old) != list(new):
            yield _told(name, *(" ".join(steps) or "none" for steps in (old, new)))
            return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _inside(f"{name}.{key}", old.get(key), new.get(key))
    elif old != new:
        yield _told(name, old, new)


def _told(name: str, old: Any, new: Any) -> str:
    return f"{name} {_short(name, old)} on record, {_short(name, new)} asked"


def _short(name: str, value: Any) -> str:
    text = "none" if value is None else str(value)
    most = 12 if name.endswith("sha256") else _LONGEST
    return text if len(text) <= most else f"{text[:most]}..."
