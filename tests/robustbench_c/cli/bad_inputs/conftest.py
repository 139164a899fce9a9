"""A folder of bad files, made once, and commands run where nothing may be left behind."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "leaderboards"))  # for hostile_records
from bad_files import FILES

_FILE = re.compile(r"@([\w.+-]+)(.*)", re.DOTALL)


@pytest.fixture(scope="session")
def bad_file(tmp_path_factory):
    """Path of a bad file, by its name in `FILES`; with what stands behind it."""
    folder = tmp_path_factory.mktemp("bad")
    made: set[str] = set()

    def path_of(text: str) -> str:
        match = _FILE.fullmatch(text)
        if match is None:
            return text
        name, more = match.groups()
        if name not in made:
            FILES[name](folder / name)
            made.add(name)
        return f"{folder / name}{more}"

    path_of.folder = folder
    return path_of
