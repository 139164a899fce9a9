"""A record as the .zip that somebody sent: looked at as a whole before anything is written."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from itertools import pairwise
from pathlib import Path, PurePosixPath

from leaderboards.errors import RecordError
from leaderboards.store import MANIFEST

MAX_ARCHIVE = 2 << 30
MAX_ENTRIES = 20_000
MAX_UNPACKED = 4 << 30
MAX_RATIO = 100
"""Largest ratio of unpacked to packed size, of entries above `_SMALL` bytes and of the whole."""
_SMALL = 1 << 20
_MAX_DIRECTORY = 4 << 20
_MAX_NAME = 300
_DEEPEST = 5
_END = b"PK\x05\x06"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NESTED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_CHUNK = 1 << 20


def unpack(archive: Path, into: Path) -> Path:
    """Unpack a record that anybody may have written.

    Args:
        archive: The .zip: one record, its files at the top or in one folder.
        into: An empty folder; nothing is written unless the whole archive is fit to be.

    Returns:
        The record's folder.

    Raises:
        RecordError: Not a .zip, too large, or with an entry that is more than a plain file of a
            plain name.
    """
    _check_end(archive)
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = opened.infolist()
            root = _check(entries, archive.stat().st_size)
            for entry in entries:
                if not entry.is_dir():
                    _extract(opened, entry, into.joinpath(*PurePosixPath(entry.filename).parts))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{archive}: a damaged archive: {error}") from None
    except (OSError, struct.error, zlib.error) as error:
        raise RecordError(f"{archive}: cannot be unpacked: {error}") from None
    return into.joinpath(*root)


def _check_end(archive: Path) -> None:
    """Check the end of the file, by which `zipfile` would read all that it claims."""
    try:
        if not archive.is_file():
            raise RecordError(f"{archive} is not a plain file")
        size = archive.stat().st_size
        if size > MAX_ARCHIVE:
            raise RecordError(f"{archive} has {size} bytes; the limit is {MAX_ARCHIVE}")
        with archive.open("rb") as file:
            file.seek(max(0, size - 65_557))
            tail = file.read()
    except OSError as error:
        raise RecordError(f"cannot read {archive}: {error.strerror or error}") from error
    place = tail.rfind(_END)
    if place < 0 or len(tail) < place + 22:
        raise RecordError(f"{archive} is not a .zip, or is cut short")
    disk, first, here, count, directory = struct.unpack("<HHHHI", tail[place + 4 : place + 16])
    if 0xFFFF in (disk, here, count) or directory == 0xFFFFFFFF:
        raise RecordError(f"{archive} is in the zip64 format: too large for a record")
    if disk or first or here != count:
        raise RecordError(f"{archive} is one part of several")
    if count > MAX_ENTRIES or directory > _MAX_DIRECTORY:
        raise RecordError(f"{archive} claims {count} entries; the limit is {MAX_ENTRIES}")


def _check(entries: list[zipfile.ZipInfo], size: int) -> tuple[str, ...]:
    """Check all entries; returns the parts of the folder that holds the record."""
    if len(entries) > MAX_ENTRIES:
        raise RecordError(f"{len(entries)} entries; the limit is {MAX_ENTRIES}")
    names: dict[str, str] = {}
    for entry in entries:
        _check_name(entry)
        key = entry.filename.rstrip("/").casefold()
        if key in names:
            raise RecordError(f"'{entry.filename}' and '{names[key]}' are one file")
        names[key] = entry.filename
        _check_size(entry)
    files = {key for key, name in names.items() if not name.endswith("/")}
    for key in names:
        if inside := next((str(p) for p in PurePosixPath(key).parents if str(p) in files), None):
            raise RecordError(f"'{names[inside]}' is a file and a folder")
    total = sum(entry.file_size for entry in entries)
    if total > MAX_UNPACKED or (total > _SMALL and total > MAX_RATIO * size):
        raise RecordError(f"unpacks to {total} bytes from {size}: no record does")
    spans = sorted((entry.header_offset, entry.compress_size) for entry in entries)
    for (begin, length), (after, _) in pairwise(spans):
        if begin + 30 + length > after:
            raise RecordError("two entries share their bytes")
    roots = [PurePosixPath(e.filename).parts[:-1] for e in entries if _is_manifest(e.filename)]
    if len(roots) != 1 or len(roots[0]) > 1:
        raise RecordError(
            f"{len(roots)} runs in it: there has to be one {MANIFEST}, at the top or in one folder"
        )
    if roots[0] and any(PurePosixPath(entry.filename).parts[:1] != roots[0] for entry in entries):
        raise RecordError(f"something lies beside the folder '{roots[0][0]}' of the run")
    return roots[0]


def _is_manifest(name: str) -> bool:
    return PurePosixPath(name).name == MANIFEST


def _check_name(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    parts = name.removesuffix("/").split("/")
    if entry.orig_filename != name or "\\" in name or ":" in name or not name.isprintable():
        raise RecordError(f"an entry with the name '{entry.orig_filename}'")
    if any(part in ("", ".", "..") or part.strip() != part for part in parts):
        raise RecordError(f"'{name}' leads out of the archive, or is no plain name")
    if len(name) > _MAX_NAME or len(parts) > _DEEPEST:
        raise RecordError(f"'{name[:40]}' is too long or too deep for a record")
    if name.lower().endswith(_NESTED):
        raise RecordError(f"'{name}' is an archive in the archive")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise RecordError(f"'{name}' is a link or a device, not a file")
    if kind == stat.S_IFDIR and not entry.is_dir():
        raise RecordError(f"'{name}' is a file and a folder")


def _check_size(entry: zipfile.ZipInfo) -> None:
    name, size, packed = entry.filename, entry.file_size, entry.compress_size
    if entry.flag_bits & 0x1:
        raise RecordError(f"'{name}' is encrypted")
    if entry.compress_type not in _METHODS:
        raise RecordError(f"'{name}' is packed by method {entry.compress_type}; use deflate")
    if size > _SMALL and size > MAX_RATIO * packed:
        raise RecordError(f"'{name}' unpacks to {size} bytes from {packed}: no record does")
    if entry.is_dir() and size:
        raise RecordError(f"'{name}' is a folder with content")


def _extract(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with opened.open(entry) as source, target.open("xb") as file:
        while chunk := source.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise RecordError(f"'{entry.filename}' is larger than it claims")
            file.write(chunk)
    if left:
        raise RecordError(f"'{entry.filename}' is smaller than it claims")
