"""A .zip is looked at as a whole before anything of it is written."""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hostile_records import a_record, diagnosed

from leaderboards.errors import RecordError
from leaderboards.validation import archive
from leaderboards.validation.archive import unpack
from leaderboards.validation.validate import validate

M = "manifest.json"
Entry = tuple[str | zipfile.ZipInfo, bytes]


def zipped(path: Path, entries: Iterable[Entry], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as opened:
        for name, data in entries:
            opened.writestr(name, data)
    return path


def named(name: str, mode: int = 0, **fields: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    info.external_attr = mode << 16
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize("top", ["", "run/"])
def test_a_record_is_unpacked_and_checked(tmp_path: Path, top: str) -> None:
    run = diagnosed(a_record(tmp_path / "run")).folder
    files = [(f"{top}{p.relative_to(run)}", p.read_bytes()) for p in run.rglob("*") if p.is_file()]
    path = zipped(tmp_path / "run.zip", files)
    found = validate(path)
    assert (found.record, found.run_id, found.found) == (str(path), "run-1", ())
    unpacked = unpack(path, tmp_path / "into")
    assert unpacked == tmp_path / "into" / top
    assert (unpacked / M).read_bytes() == (run / M).read_bytes()


def test_places_in_findings_are_those_of_the_record(tmp_path: Path) -> None:
    found = validate(zipped(tmp_path / "run.zip", [(M, b"{")]))
    assert found.errors == 1
    assert "robustbench-c-" not in f"{found.found[0].place} {found.found[0].problem}"


BAD: dict[str, tuple[list[Entry], str]] = {
    "traversal": ([(M, b"{}"), ("../evil", b"x")], "leads out"),
    "traversal inside": ([(M, b"{}"), ("a/../../evil", b"x")], "leads out"),
    "absolute": ([(M, b"{}"), ("/tmp/evil", b"x")], "leads out"),
    "a drive": ([(M, b"{}"), ("C:evil", b"x")], "an entry with the name"),
    "backslashes": ([(M, b"{}"), (named("..\\evil"), b"x")], "an entry with the name"),
    "two lines": ([(M, b"{}"), ("a\nb", b"x")], "an entry with the name"),
    "a dot": ([(M, b"{}"), ("./a", b"x")], "leads out"),
    "an empty part": ([(M, b"{}"), ("a//b", b"x")], "leads out"),
    "a blank at the end": ([(M, b"{}"), ("a /b", b"x")], "leads out"),
    "a link": ([(M, b"{}"), (named("a", stat.S_IFLNK | 0o777), b"/etc/passwd")], "a link or"),
    "a pipe": ([(M, b"{}"), (named("a", stat.S_IFIFO), b"")], "a link or a device"),
    "one name in two cases": ([(M, b"{}"), ("a/B", b"x"), ("A/b", b"y")], "are one file"),
    "a file and a folder": ([(M, b"{}"), ("a", b"x"), ("a/b", b"y")], "a file and a folder"),
    "a long name": ([(M, b"{}"), ("a" * 301, b"x")], "too long"),
    "deep": ([(M, b"{}"), ("a/" * 9 + "b", b"x")], "too deep"),
    "an archive": ([(M, b"{}"), ("more.zip", b"x")], "an archive in the archive"),
    "a folder with content": ([(M, b"{}"), (named("a/"), b"x")], "a folder with content"),
    "a bomb": ([(M, b"{}"), ("a", bytes(20 << 20))], "no record does"),
    "many small bombs": ([(M, b"{}"), *((f"a{i}", bytes(1 << 20)) for i in range(9))], "no record"),
    "no run": ([("a", b"x")], "0 runs in it"),
    "two runs": ([("a/" + M, b"{}"), ("b/" + M, b"{}")], "2 runs in it"),
    "a run too deep": ([("a/b/" + M, b"{}")], "1 runs in it"),
    "beside the run": ([("a/" + M, b"{}"), ("b/c", b"x")], "beside the folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_archives_leave_nothing(name: str, tmp_path: Path) -> None:
    entries, problem = BAD[name]
    path, into = zipped(tmp_path / "run.zip", entries), tmp_path / "into"
    into.mkdir()
    with pytest.raises(RecordError, match=problem):
        unpack(path, into)
    assert list(into.iterdir()) == []
    assert [each.severity for each in validate(path).found] == ["error"]


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        path = zipped(tmp_path / "run.zip", [(M, b"{}"), (M, b"[]")])
    with pytest.raises(RecordError, match="are one file"):
        unpack(path, tmp_path / "into")


def test_other_packing_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "run.zip", [(M, b"{}")], zipfile.ZIP_LZMA)
    with pytest.raises(RecordError, match="use deflate"):
        unpack(path, tmp_path / "into")


def test_encrypted_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path / "run.zip", [(M, b"{}")]).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "run.zip").write_bytes(data)
    with pytest.raises(RecordError, match="encrypted"):
        unpack(tmp_path / "run.zip", tmp_path / "into")


def test_entries_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """The bomb of Fifield 2019: one kernel, quoted by many entries."""
    data = bytearray(zipped(tmp_path / "run.zip", [(M, b"{}"), ("a", b"x" * 99)]).read_bytes())
    second = data.rindex(b"PK\x01\x02")
    data[second + 42 : second + 46] = struct.pack("<I", 0)  # of the second entry: that of the first
    (tmp_path / "run.zip").write_bytes(data)
    with pytest.raises(RecordError, match="share their bytes"):
        unpack(tmp_path / "run.zip", tmp_path / "into")


def test_claims_are_held_against_what_comes(tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path / "run.zip", [(M, b"{}"), ("a", b"x" * 999)]).read_bytes())
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.rindex(mark) + place
        assert struct.unpack("<I", data[at : at + 4]) == (999,)
        data[at : at + 4] = struct.pack("<I", 9)
    (tmp_path / "run.zip").write_bytes(data)
    with pytest.raises(RecordError, match=r"damaged|claims"):
        unpack(tmp_path / "run.zip", tmp_path / "into")


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\x05\x06", b"x" * 100, b"PK\x03\x04" * 50])
def test_no_archive(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "run.zip").write_bytes(data)
    with pytest.raises(RecordError, match=r"not a \.zip"):
        unpack(tmp_path / "run.zip", tmp_path / "into")


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [(10, 0xFFFF, "zip64"), (4, 1, "one part"), (8, 3, "one part"), (12, 1 << 30, "claims")],
)
def test_the_end_is_looked_at_first(tmp_path: Path, place: int, value: int, problem: str) -> None:
    path = zipped(tmp_path / "run.zip", [(M, b"{}")])
    data, form = bytearray(path.read_bytes()), "<I" if place == 12 else "<H"
    at = data.rindex(b"PK\x05\x06") + place
    data[at : at + struct.calcsize(form)] = struct.pack(form, value)
    path.write_bytes(data)
    with pytest.raises(RecordError, match=problem):
        unpack(path, tmp_path / "into")


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ENTRIES", 3)
    path = zipped(tmp_path / "run.zip", [(M, b"{}"), *((f"{i}", b"") for i in range(3))])
    with pytest.raises(RecordError, match="4 entries"):
        unpack(path, tmp_path / "into")


def test_a_folder_or_pipe_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="not a plain file"):
        unpack(tmp_path, tmp_path / "into")
