"""What a gate compares: the verdicts of a run, small enough to be committed to a repository."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import AwareDatetime, Field, ValidationError, model_validator

from leaderboards.canonical import sha256_json
from leaderboards.entries import Entry, read_entry
from leaderboards.errors import NotComparableError, RecordError
from leaderboards.files import read_bytes
from leaderboards.manifest import (
    DataInfo,
    ModelInfo,
    Parameter,
    Protocol,
    Record,
    Sha256,
    Slug,
    Text,
    explain,
)
from leaderboards.pairs import right_by_verdict
from leaderboards.sample_ids import format_ids, parse_ids
from leaderboards.store import RunStore
from leaderboards.strict_json import check_json
from leaderboards.verdicts import (
    CLEAN_STEP,
    EXPLAINED_LEGAL,
    LEGAL,
    RULES_VERSION,
    SETTLED,
    Verdict,
)

BASELINE_SCHEMA: Final = 1
MAX_BASELINE_BYTES = 64 << 20
_BY_NO_STEP = frozenset({Verdict.UNDECIDED, Verdict.ERROR})
_Ranges = str
"""Ids as `format_ids` writes them; nothing where there are none."""


class Group(Record):
    """The samples of one verdict that one step settled."""

    verdict: Literal["wrong", "broken", "certified", "undecided", "error"]
    """Their verdict."""
    settled_by: Slug | None
    """The step; null of `undecided` and `error`."""
    ids: _Ranges
    """Their ids, as ascending ranges: `0-2,7`."""


class Baseline(Record):
    """The verdicts of a complete run, sample by sample, and what makes another comparable to it."""

    schema_version: Literal[1] = BASELINE_SCHEMA
    """Format of this file."""
    rules: Annotated[int, Field(ge=1)] = RULES_VERSION
    """Version of the verdict rules that settled the samples."""
    run_id: Slug
    """Name of the run."""
    created: AwareDatetime
    """When the run was begun."""
    model: ModelInfo
    """The model, without its card."""
    data: DataInfo
    """The data, and which of its samples."""
    protocol: Protocol
    """Threat model, steps and rules."""
    protocol_sha256: Sha256
    """Hash of `protocol`."""
    identity: Sha256
    """Hash of `identity_fields`."""
    identity_fields: dict[Text, Parameter]
    """What determined the results; see `Manifest.identity_fields`."""
    clean: _Ranges
    """Samples that are right without an attack, as ranges."""
    labels: tuple[_Ranges, ...]
    """Samples of each class."""
    verdicts: Annotated[tuple[Group, ...], Field(max_length=10_000)]
    """All samples, by verdict and step."""
    flags: tuple[Slug, ...] | None
    """Names of the red flags of the run; null where it was not diagnosed."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        self._check_hashes()
        self._check_groups()
        return self

    def _check_hashes(self) -> None:
        found = {
            "model.sha256": self.model.sha256,
            "data.sha256": self.data.sha256,
            "data.ids": self.data.ids_sha256,
            "protocol_sha256": self.protocol_sha256,
        }
        if self.protocol_sha256 != self.protocol.sha256:
            raise RecordError("protocol_sha256 is not the hash of protocol")
        if any(self.identity_fields.get(name) != value for name, value in found.items()):
            raise RecordError("identity_fields are not those of model, data and protocol")
        if self.identity != sha256_json(self.identity_fields):
            raise RecordError("identity is not the hash of identity_fields")
        if len(self.labels) != len(self.data.classes):
            raise RecordError("labels are not those of as many classes as the data have")

    def _check_groups(self) -> None:
        explained = self.protocol.explanation is not None
        legal = EXPLAINED_LEGAL if explained else LEGAL
        may = {CLEAN_STEP: legal["clean"]} | {s.name: legal[s.kind] for s in self.protocol.steps}
        for group in self.verdicts:
            by, verdict = group.settled_by, Verdict(group.verdict)
            if verdict not in (_BY_NO_STEP if by is None else may.get(by, frozenset()) & SETTLED):
                raise RecordError(f"verdicts: {verdict} cannot be settled by {by or 'no step'}")
        self.classes()
        verdicts, clean = self.settled()["verdict"], self.right()["clean"]
        wrong = verdicts.isin([Verdict.WRONG]) & clean
        right = verdicts.isin([Verdict.BROKEN, Verdict.CERTIFIED, Verdict.UNDECIDED]) & ~clean
        if not explained and (wrong | right).any():
            raise RecordError("clean and verdicts do not agree")

    def settled(self) -> pd.DataFrame:
        """Return `verdict` and `settled_by` of every sample, by ascending id."""
        ids = self.data.sample_ids
        groups = _partition("verdicts", [group.ids for group in self.verdicts], ids)
        named = [(g.verdict, g.settled_by) for g in self.verdicts]
        frame = pd.DataFrame(named, columns=["verdict", "settled_by"], dtype="string")
        return frame.iloc[groups].set_axis(pd.Index(ids, name="sample_id"))

    def classes(self) -> npt.NDArray[np.int64]:
        """Return the label of every sample, (n,)."""
        return _partition("labels", self.labels, self.data.sample_ids)

    def right(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Return which samples count, by rate; see `leaderboards.pairs.right_by_rate`."""
        ids = self.data.sample_ids
        clean = np.zeros(ids.size, dtype=np.bool_)
        clean[_within("clean", self.clean, ids)] = True
        return {"clean": clean} | right_by_verdict(self.protocol, self.settled()["verdict"])

    def to_bytes(self) -> bytes:
        """The baseline as it is written to disk."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    @classmethod
    def of(cls, entry: Entry) -> Baseline:
        """Return the verdicts of a run.

        Raises:
            NotComparableError: It is not complete, or hangs on the speed of a machine.
        """
        manifest, summary = entry.manifest, entry.summary
        if not summary.complete:
            raise NotComparableError(
                f"{entry.folder} is not complete: the same command goes on with it"
            )
        if not manifest.reproducible:
            raise NotComparableError(
                f"{entry.folder} is not reproducible (a budget in seconds, or an attack of "
                "foolbox): on a slower machine the same model looks worse"
            )
        ids = manifest.data.sample_ids
        clean = RunStore.open(entry.folder).read_step(CLEAN_STEP).set_index("sample_id")
        labels = clean["label"].reindex(ids).to_numpy(np.int64)
        settled = entry.settled.fillna({"settled_by": ""})
        groups = [
            Group(verdict=verdict, settled_by=step or None, ids=_ranges(ids[rows]))
            for (verdict, step), rows in _places(settled).items()
        ]
        return cls(
            run_id=manifest.run_id,
            created=manifest.created,
            model=manifest.model.model_copy(update={"card": None}),
            data=manifest.data,
            protocol=manifest.protocol,
            protocol_sha256=manifest.protocol_sha256,
            identity=manifest.identity(),
            identity_fields=manifest.identity_fields(),
            clean=_ranges(ids[entry.right["clean"]]),
            labels=tuple(_ranges(ids[labels == c]) for c in range(len(manifest.data.classes))),
            verdicts=tuple(groups),
            flags=None if summary.flags is None else tuple(flag.name for flag in summary.flags),
        )


def read_baseline(path: Path) -> Baseline:
    """Read a run, or a file of `Baseline.to_bytes`; anybody may have written either.

    Raises:
        NotComparableError: A run that is no measure for others; see `Baseline.of`.
        RecordError: Neither of them, or it does not agree with itself.
    """
    if path.is_dir():
        return Baseline.of(read_entry(path))
    data = read_bytes(path.parent, path, MAX_BASELINE_BYTES)
    try:
        check_json(data)
        return Baseline.model_validate_json(data)
    except (RecordError, ValidationError) as error:
        why = explain(error) if isinstance(error, ValidationError) else error
        raise RecordError(
            f"{path} is no baseline (robust-leaderboard baseline makes one): {why}"
        ) from None


def _places(settled: pd.DataFrame) -> dict[tuple[Any, str], npt.NDArray[np.int64]]:
    """The places of the samples of each verdict and step, in the order of these."""
    found = settled.reset_index(drop=True).groupby(["verdict", "settled_by"])
    return {(str(v), str(s)): rows.index.to_numpy(np.int64) for (v, s), rows in found}


def _ranges(ids: Iterable[int]) -> str:
    found = np.asarray(ids, dtype=np.int64)
    return format_ids(found) if found.size else ""


def _within(what: str, text: str, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The places in `ids` of those that a text names."""
    found = parse_ids(text) if text else np.empty(0, dtype=np.int64)
    places = np.searchsorted(ids, found)
    if found.size and (found[-1] > ids[-1] or (ids[places] != found).any()):
        raise RecordError(f"{what}: sample {found[-1]} or one before it is not of the run")
    if text != _ranges(found):
        raise RecordError(f"{what}: ids have to be written as '{_ranges(found)[:40]}'")
    return places


def _partition(
    what: str, texts: Iterable[str], ids: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Which of some sets each of `ids` is in, (n,); stops at the first id that is in two."""
    sets = np.full(ids.size, -1, dtype=np.int64)
    for number, text in enumerate(texts):
        places = _within(what, text, ids)
        if (sets[places] >= 0).any():
            raise RecordError(f"{what}: a sample is there twice")
        sets[places] = number
    if (sets < 0).any():
        raise RecordError(f"{what}: sample {ids[sets < 0][0]} is missing")
    return sets
