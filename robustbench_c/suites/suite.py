"""A suite's file: tables of options, every combination of which is a job.

    name = "mine"

    [defaults]           # of the tables that evaluate
    samples = 200

    [[runs]]
    model = ["fmnist-cnn-*", "models/own.safetensors"]
    except = ["fmnist-cnn-standard"]
    threats = [{ norm = "linf", eps = 0.1 }, { norm = "l2", eps = 1.0 }]
    attack = ["pgd", "auto"]
    certify = "cascade"

A key is an option of the command without its dashes; a list of values is one job for each; a list
of tables under any other name is one job for each table of options. What a table of the command
`train` trains under a `name` is the model "trained:NAME" of the others. Suites are written by
strangers: they choose options of the commands, none of those that say where results go or that
allow code to be run.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leaderboards.errors import one_line
from leaderboards.manifest import Slug, explain
from robustbench_c import zoo
from robustbench_c.cli.attacks import check_attack
from robustbench_c.errors import UsageError, did_you_mean
from robustbench_c.files import read_toml
from robustbench_c.suites.job import PROGRAMS, Job
from robustbench_c.suites.options import Options, options_of

_FOLDER = Path(__file__).parent
_MOST_JOBS = 10_000
_EVALUATE = ("eval", "corrupt", "smooth")
"""Commands that the defaults of a suite are for."""
_OF_SUITE = ("command", "except")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILES = ("model", "data", "recipe", "protocol", "start")
"""Options whose values can be files."""


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Slug
    description: str = ""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    defaults: dict[str, Any] = {}
    runs: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=_MOST_JOBS)]


@dataclass(frozen=True)
class Suite:
    """A suite's jobs.

    Attributes:
        name: Its name.
        description: What it is, in one line.
        threads: CPU threads of each worker: a run's results are those of one number of threads.
        jobs: In the order of the file, none twice.
    """

    name: str
    description: str
    threads: int
    jobs: tuple[Job, ...]

    def only(self, words: tuple[str, ...]) -> tuple[Job, ...]:
        """The jobs whose command line has each of these words.

        Raises:
            UsageError: None has.
        """
        found = tuple(job for job in self.jobs if all(word in str(job) for word in words))
        if not found:
            said = " and ".join(f"'{one_line(word)}'" for word in words)
            raise UsageError(f"no job of the suite '{self.name}' has {said} (--plan shows them)")
        return found


def known_suites() -> list[str]:
    """Names of the suites in the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_suite(name_or_path: str) -> Suite:
    """Read a suite of the package, or a TOML file.

    Raises:
        UsageError: There is none, it is malformed, or asks for what a command does not have.
    """
    shown = one_line(name_or_path)
    path = Path(name_or_path)
    if name_or_path in known_suites():
        path = _FOLDER / f"{name_or_path}.toml"
    elif path.suffix != ".toml":
        hint = did_you_mean(name_or_path, known_suites())
        if _is_file(name_or_path):
            hint = "a suite's file ends in .toml"
        raise UsageError(f"no suite '{shown}'; {hint}")
    try:
        found = _File.model_validate(read_toml(path, "suite"))
    except ValidationError as error:
        raise UsageError(f"{shown} is not a suite: {explain(error)}") from error
    try:
        jobs = tuple(_all_jobs(found))
        _check_trained(jobs)
    except UsageError as error:
        raise UsageError(f"{shown}: {error}") from error
    return Suite(found.name, found.description, found.threads, jobs)


def _all_jobs(suite: _File) -> Iterator[Job]:
    seen: set[str] = set()
    made = 0
    for number, table in enumerate(suite.runs, 1):
        try:
            for job in _jobs(suite, table):
                made += 1
                if job.id not in seen:
                    seen.add(job.id)
                    yield job
                _check_number(made)
        except UsageError as error:
            raise UsageError(f"run {number}: {error}") from error


def _jobs(suite: _File, table: Mapping[str, Any]) -> Iterator[Job]:
    command = table.get("command", "eval")
    if not isinstance(command, str) or command not in PROGRAMS:
        raise UsageError(f"no command {one_line(repr(command))}; known: {', '.join(PROGRAMS)}")
    known = options_of(PROGRAMS[command])
    for key in suite.defaults:
        if not any(key in options_of(PROGRAMS[each]) for each in _EVALUATE):
            raise UsageError(f"defaults: {options_of(PROGRAMS['eval']).unknown(key)}")
    own = suite.defaults if command in _EVALUATE else {}
    settings = {key: value for key, value in own.items() if key in known} | {
        key: value for key, value in table.items() if key not in _OF_SUITE
    }
    left_out = table.get("except", [])
    patterns = left_out if isinstance(left_out, list) else [left_out]
    for chosen in _alternatives(settings, known, patterns):
        yield replace(_job(command, known, chosen), threads=suite.threads)


def _alternatives(
    settings: Mapping[str, Any], known: Options, left_out: Sequence[object]
) -> list[dict[str, Any]]:
    """Every combination of the values of each key; a list of tables is one key."""
    axes: list[list[dict[str, Any]]] = []
    for key, value in settings.items():
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            axes.append(several := [])
            for each in value:
                several += _alternatives(each, known, left_out)
                _check_number(len(several))
        elif key not in known:
            raise UsageError(known.unknown(key))
        else:
            axes.append([{key: each} for each in _choices(key, value, left_out)])
    _check_number(math.prod(map(len, axes)))
    found = []
    for parts in itertools.product(*axes):
        found.append(merged := dict(parts[0]) if parts else {})
        for part in parts[1:]:
            if twice := merged.keys() & part.keys():
                raise UsageError(f"'{one_line(min(twice))}' is set twice")
            merged |= part
    return found


def _check_number(jobs: int) -> None:
    if jobs > _MOST_JOBS:
        raise UsageError(f"more than {_MOST_JOBS} jobs")


def _choices(key: str, value: object, left_out: Sequence[object]) -> list[object]:
    """The values of an option, one for each job; patterns stand for models of the zoo."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise UsageError(f"'{key}' has no value")
    if key != "model":
        return values
    found: list[object] = []
    for each in values:
        if not isinstance(each, str):
            raise UsageError(f"'model' is the name of one, not {one_line(repr(each))}")
        names = [each]
        if any(sign in each for sign in "*?["):
            names = [name for name in zoo.names() if fnmatchcase(name, each)]
            if not names:
                raise UsageError(f"no model of the zoo matches '{one_line(each)}'")
        found += [name for name in names if not any(fnmatchcase(name, str(p)) for p in left_out)]
    if not found:
        raise UsageError("'except' leaves no model")
    return list(dict.fromkeys(found))


def _job(command: str, known: Options, chosen: Mapping[str, Any]) -> Job:
    words = [word for key, value in chosen.items() for word in known.words(key, value)]
    for word in words:
        known.check(word)
    texts = {key: value for key in _FILES if isinstance(value := chosen.get(key), str)}
    if "model" in texts:
        _check_model(texts["model"])
    if isinstance(attack := chosen.get("attack"), str):
        check_attack(attack)
    name = None
    if command == "train":
        name = chosen.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UsageError("give what is trained a 'name' of letters, digits, '.', '_' and '-'")
    return Job(command, tuple(words), tuple(_files(texts)), name)


def _files(texts: Mapping[str, str]) -> Iterator[str]:
    """The files among the values of options, and what belongs to them."""
    for key, text in texts.items():
        whole, code = Path(text), text.rpartition(":")[0]
        if _is_file(text):
            yield text
            if key in ("model", "start") and _is_file(card := str(whole.with_suffix(".json"))):
                yield card
        elif key == "model" and _is_file(code):  # file.py:factory
            yield code


def _check_model(name: str) -> None:
    """Refuse what can only be the name of a model of the zoo, and is none."""
    if not any(sign in name for sign in ":./\\") and name not in zoo.names():
        raise UsageError(f"no model '{one_line(name)}'; {did_you_mean(name, zoo.names())}")


def _check_trained(jobs: tuple[Job, ...]) -> None:
    trained = [job.name for job in jobs if job.trains]
    if twice := next((name for name in trained if trained.count(name) > 1), None):
        raise UsageError(f"two jobs train a model of the name '{twice}'")
    for job in jobs:
        if job.asks_for is not None and job.asks_for not in trained:
            raise UsageError(f"no job trains a model of the name '{one_line(job.asks_for)}'")


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False
