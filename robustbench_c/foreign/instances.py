"""Lists of instances, and what others found for them, as the verification competition has them."""

from __future__ import annotations

import csv
import io
import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from robustbench_c.errors import DataError
from robustbench_c.foreign.reading import printable, read_limited

_MOST_BYTES = 1 << 26
_VERDICTS = ("sat", "unsat", "unknown", "timeout", "error")


@dataclass(frozen=True)
class Instance:
    """One question: a network, a property, and the time to answer in.

    Attributes:
        onnx: The network's file.
        vnnlib: The property's file.
        timeout: Seconds, above 0.
    """

    onnx: Path
    vnnlib: Path
    timeout: float


def read_instances(path: Path) -> tuple[Instance, ...]:
    """Read an `instances.csv`: lines of network, property and timeout, without a header.

    Paths are relative to the file. Where one is not there but is with `.gz` behind, that is meant.

    Raises:
        DataError: The file cannot be read, a line is malformed, or a file is not there; names the
            line.
    """
    path = Path(path)
    instances = []
    for number, row in _rows(path):
        place = f"{path}, line {number}"
        if len(row) != 3:
            raise DataError(f"{place}: {len(row)} columns; needed are network, property, timeout")
        timeout = _seconds(row[2], place)
        instances.append(
            Instance(_existing(path, row[0], place), _existing(path, row[1], place), timeout)
        )
    if not instances:
        raise DataError(f"{path}: no instances")
    return tuple(instances)


def read_reference(path: Path) -> dict[tuple[Path, Path], str]:
    """Read the verdicts of others: `sat`, `unsat`, `unknown`, `timeout` or `error`.

    The file has a header with at least the columns onnx, vnnlib and reference.

    Returns:
        Verdict by (network, property), the paths as in `read_instances` of the same folder.

    Raises:
        DataError: The file cannot be read, lacks a column, or a line is malformed.
    """
    path = Path(path)
    (_, header), *rows = _rows(path) or [(1, [])]
    for column in ("onnx", "vnnlib", "reference"):
        if column not in header:
            raise DataError(f"{path}: has no column '{column}' in its first line")
    verdicts: dict[tuple[Path, Path], str] = {}
    for number, row in rows:
        place = f"{path}, line {number}"
        if len(row) != len(header):
            raise DataError(f"{place}: {len(row)} columns, but the header has {len(header)}")
        entry = dict(zip(header, row, strict=True))
        if entry["reference"] not in _VERDICTS:
            known = ", ".join(_VERDICTS)
            raise DataError(
                f"{place}: {printable(entry['reference'])} is no verdict; known: {known}"
            )
        key = (_existing(path, entry["onnx"], place), _existing(path, entry["vnnlib"], place))
        if verdicts.setdefault(key, entry["reference"]) != entry["reference"]:
            raise DataError(f"{place}: a second, different verdict for the same instance")
    return verdicts


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return the lines that are not blank, each with its number."""
    content = read_limited(path, _MOST_BYTES, DataError)
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig")), strict=True)
        return [
            (reader.line_num, [cell.strip() for cell in row])
            for row in reader
            if "".join(row).strip()
        ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file ({error})") from error


def _seconds(cell: str, place: str) -> float:
    try:
        seconds = float(cell)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise DataError(f"{place}: timeout {printable(cell)} is not a number of seconds above 0")
    return seconds


def _existing(table: Path, cell: str, place: str) -> Path:
    if not cell or "\0" in cell:
        raise DataError(f"{place}: {printable(cell)} is not the name of a file")
    plain = table.parent / cell
    for path in (plain, plain.with_name(plain.name + ".gz")):
        with suppress(OSError):  # a name that is too long
            if path.is_file():
                return path
    raise DataError(f"{place}: there is no file {printable(str(plain))}")
