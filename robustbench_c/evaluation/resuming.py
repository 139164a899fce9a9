"""Where a run lies, and whether it is the one that is to go on."""

from __future__ import annotations

from pathlib import Path

from leaderboards.differences import differences
from leaderboards.manifest import Manifest
from leaderboards.store import RunStore
from robustbench_c.errors import RunError

_SHOWN = 4


def place_of(manifest: Manifest, out: Path | str, resume: Path | str | None) -> Path:
    """Return the folder of a run: under its own name in `out`, or the one to go on in.

    Args:
        manifest: What is asked for.
        out: Folder of the runs.
        resume: The folder of a run which has to be this very one; None for any.

    Raises:
        RecordError: `resume` is not the folder of a run.
        RunError: It is that of another run; the message names what differs.
    """
    if resume is None:
        return Path(out) / manifest.run_id
    folder = Path(resume)
    if found := differences(RunStore.open(folder).manifest, manifest):
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise RunError(f"{folder} is another run: {'; '.join(found[:_SHOWN])}{more}")
    return folder
