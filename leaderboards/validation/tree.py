"""The folder of a record, before any file in it is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from leaderboards.diagnostics import FILE as DIAGNOSTICS
from leaderboards.distances import CURVE
from leaderboards.files import is_temporary
from leaderboards.site.heat_maps import FILE as HEAT_MAPS
from leaderboards.store import MANIFEST, SHARDS, SUMMARY
from leaderboards.validation.findings import Finding
from leaderboards.worklog import FOLDER as LOG

MAX_FILES = 50_000
"""Files and folders of one record."""
EXAMPLES = "adversarial"
CONTRADICTION = "contradiction"
_FILES = {MANIFEST, SUMMARY, DIAGNOSTICS, CURVE, "explanation.safetensors", HEAT_MAPS}
_FOLDERS = {SHARDS, EXAMPLES, CONTRADICTION, LOG}
_PICTURES = (".png", ".svg", ".pdf")
_DEEPEST = 3
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_PLAIN = "remove it: a record holds plain files and folders"


def look(root: Path) -> tuple[list[Finding], bool]:
    """Look at every file and folder of a record without opening a file.

    Args:
        root: The record's folder.

    Returns:
        What is wrong, and whether files may be opened: there are neither too many nor any that
        are more than plain files (a pipe would never end, a link leads elsewhere).
    """
    found: list[Finding] = []
    seen, safe = 0, True
    try:
        for path, mode in _walk(root):
            seen += 1
            if seen > MAX_FILES:
                problem = f"more than {MAX_FILES} files and folders"
                return [Finding("error", ".", problem, "send the record alone")], False
            name = path.relative_to(root)
            if (kind := _KINDS.get(stat.S_IFMT(mode))) is not None:
                found.append(Finding("error", str(name), f"{kind}, not a file or folder", _PLAIN))
                safe = False
            elif not str(name).isprintable():
                found.append(Finding("error", str(name), "a name that cannot be shown", _PLAIN))
                safe = False
            elif len(name.parts) > _DEEPEST:
                found.append(Finding("error", str(name), "folders too deep for a record", _PLAIN))
            else:
                found += _strange(name, stat.S_ISDIR(mode))
    except OSError as error:
        return [*found, Finding("error", ".", f"cannot be read: {error.strerror or error}")], False
    return found, safe


def _walk(root: Path) -> Iterator[tuple[Path, int]]:
    """Every entry below a folder with its mode, in order; links are not followed."""
    with os.scandir(root) as entries:
        held = []
        for entry in entries:
            held.append(entry)
            if len(held) > MAX_FILES:
                break
    for entry in sorted(held, key=lambda each: each.name):
        mode = entry.stat(follow_symlinks=False).st_mode
        path = Path(entry.path)
        yield path, mode
        if stat.S_ISDIR(mode) and len(path.relative_to(root).parts) <= _DEEPEST:
            yield from _walk(path)


def _strange(name: Path, is_folder: bool) -> list[Finding]:
    """What is not known of records: of no harm, since nothing opens it."""
    if is_temporary(name):
        return [Finding("note", str(name), "left by a crash, not looked at", "remove it")]
    if len(name.parts) > 1 or name.name in (_FOLDERS if is_folder else _FILES):
        return []
    if not is_folder and name.suffix in _PICTURES:  # made of the record, for people
        return []
    return [Finding("note", str(name), "no part of a record, not looked at")]
