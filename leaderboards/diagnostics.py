"""Signs that a run's attacks failed: what was measured, and which of it spoils the run.

`diagnostics.json` says of which samples each sign holds. A sign of masked gradients is refuted
where gradients broke the sample, or the run proved it: there it counts for nothing. What attacks
without gradients alone broke refutes nothing, it is what a masked model looks like. So whether a
flag is red follows from that file and the verdicts together, and is worked out anew each time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, get_args

import numpy as np
import pandas as pd
from pydantic import Field, ValidationError, model_validator

from leaderboards.errors import RecordError
from leaderboards.files import atomic_write_bytes, list_folder, read_bytes
from leaderboards.manifest import Count, Protocol, Record, Sha256, Slug, StepInfo, Text, explain
from leaderboards.sample_ids import Ids
from leaderboards.signs import SIGNS, About
from leaderboards.verdicts import CLEAN_STEP, Verdict

if TYPE_CHECKING:
    from leaderboards.store import RunStore

Knowledge = Literal["white-box", "score", "decision", "none"]
"""What an attack has to know of a model: gradients, logits, predicted classes, or nothing."""
FILE = "diagnostics.json"
DIAGNOSTICS_SCHEMA: Final = 2
MOST = 64
"""Samples that are looked at: the first, by their ids, that are right on the clean input."""
_MAX_BYTES = 1 << 20
_AGAIN = "remove the file, and the same robust-eval makes it again"
_Share = Annotated[float, Field(ge=0, le=1)]
_Seconds = Annotated[float, Field(ge=0)]
_SampleIds = Annotated[tuple[Count, ...], Field(max_length=MOST)]


class Measured(Record):
    """One sign, as it was measured on the model; no verdict is looked at here."""

    name: Slug
    """Name of the flag."""
    meaning: Text
    """What it says of a sample."""
    about: About
    """What it spoils: every verdict, or those of the samples it holds of."""
    limit: _Share
    """A share of samples above this is a red flag."""
    held: _SampleIds | None
    """Samples it holds of, ascending; null where it cannot be said for this threat model."""
    value: _Share | None
    """Their share of the samples that were looked at; null likewise."""


class Diagnostics(Record):
    """What `diagnostics.json` holds."""

    schema_version: Literal[1, 2] = DIAGNOSTICS_SCHEMA
    """Format of the file, and version of the probes: in those of 1 `loss-stands-still` did not look
    at eps."""
    identity: Sha256
    """The identity of the run that it is about."""
    looked_at: _SampleIds
    """Samples that were looked at, ascending."""
    measured: tuple[Measured, ...]
    """All signs, red or not; none where no sample could be looked at."""
    forwards: Count
    """Forward passes of one sample, in all."""
    backwards: Count
    """Backward passes of one sample, in all."""
    seconds: _Seconds
    """Time in all."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        names = [sign.name for sign in self.measured]
        if len(set(names)) < len(names):
            raise ValueError("a flag is there twice")
        for ids in (self.looked_at, *(sign.held or () for sign in self.measured)):
            if list(ids) != sorted(set(ids)):
                raise ValueError("sample ids have to be ascending")
        for sign in self.measured:
            known = sign.held is not None
            if known != (sign.value is not None) or not set(sign.held or ()) <= set(self.looked_at):
                raise ValueError(f"{sign.name} is about other samples than were looked at")
            if known and sign.value != len(sign.held or ()) / max(len(self.looked_at), 1):
                raise ValueError(f"the value of {sign.name} is not the share of its samples")
        return self

    def to_bytes(self) -> bytes:
        """The diagnostics as they are written to disk."""
        return (self.model_dump_json(indent=1) + "\n").encode()


class RedFlag(Record):
    """A sign by which a run's robust accuracy is not to be trusted."""

    name: Slug
    """Name of the flag."""
    meaning: Text
    """What it says of a sample."""
    value: _Share
    """Share of the samples that count: of those looked at that no proof and no attack by gradients
    settled; where it is about the model, of all that were looked at."""
    limit: _Share
    """Values above it are red."""
    samples: Count
    """Samples that count."""


def can_be_diagnosed(protocol: Protocol) -> bool:
    """Whether a run has attacks on predictions to be diagnosed, in a ball that is not a point.

    In L0 there is no search by gradients that the probes could be made of; those of smoothed
    classifiers, corruptions and transformations are no attacks by gradients.
    """
    threat, kinds = protocol.threat, [step.kind for step in protocol.steps]
    changed = protocol.corruption is not None or protocol.transformation is not None
    smoothed = any(s.kind == "certificate" and "sigma" in s.parameters for s in protocol.steps)
    return (
        "attack" in kinds
        and protocol.explanation is None
        and not (changed or smoothed)
        and threat.eps > 0
        and threat.norm != "l0"
    )


def knowledge_of(step: StepInfo) -> Knowledge | None:
    """What an attack's step says that it has to know of the model; None of other steps.

    PGD's and those on explanations say nothing, and need gradients.
    """
    found = [known for known in get_args(Knowledge) if known == step.parameters.get("knowledge")]
    return found[0] if found else ("white-box" if step.kind == "attack" else None)


def counted(
    diagnostics: Diagnostics, settled: pd.DataFrame, steps: Sequence[StepInfo]
) -> Iterator[tuple[Measured, int, int]]:
    """Yield each sign, the samples that count of which it holds, and all samples that count.

    A flag about samples counts those that are not proved, and that no attack by gradients broke.

    Args:
        diagnostics: Of the run.
        settled: Columns `verdict` and `settled_by`, indexed by sample id, as the run has them now.
        steps: Of the run's protocol.
    """
    blind = [step.name for step in steps if knowledge_of(step) not in ("white-box", None)]
    refuted = settled["verdict"].isin([Verdict.CERTIFIED])
    refuted |= settled["verdict"].isin([Verdict.BROKEN]) & ~settled["settled_by"].isin(blind)
    everything = np.array(diagnostics.looked_at, dtype=np.int64)
    resting = everything[~np.isin(everything, settled.index[refuted])]
    for sign in diagnostics.measured:
        ids = resting if sign.about == "sample" else everything
        yield sign, int(np.isin(ids, sign.held or ()).sum()), int(ids.size)


def red_flags(
    diagnostics: Diagnostics, settled: pd.DataFrame, steps: Sequence[StepInfo]
) -> tuple[RedFlag, ...]:
    """Return the flags that make a run unreliable.

    It takes more than one sample, unless the flag may hold of none at all. Arguments as of
    `counted`.
    """
    return tuple(
        RedFlag(
            name=sign.name,
            meaning=sign.meaning,
            value=held / samples,
            limit=sign.limit,
            samples=samples,
        )
        for sign, held, samples in counted(diagnostics, settled, steps)
        if held > (1 if sign.limit else 0) and held / samples > sign.limit
    )


def chosen(clean: pd.DataFrame) -> Ids:
    """Return the samples to look at, from the rows of the clean step."""
    right = clean["sample_id"][clean["verdict"].isna()].to_numpy(dtype=np.int64)
    return np.sort(right)[:MOST]


def write_diagnostics(store: RunStore, diagnostics: Diagnostics) -> None:
    """Write `diagnostics.json`.

    Raises:
        RecordError: It is about another run, other samples or other signs, or cannot be written.
    """
    _check(store, diagnostics)
    atomic_write_bytes(store.folder / FILE, diagnostics.to_bytes())


def read_diagnostics(store: RunStore) -> Diagnostics | None:
    """Return a run's diagnostics; None where it has none.

    Raises:
        RecordError: The file is damaged, about another run, or sets limits of its own.
    """
    path = store.folder / FILE
    if path not in list_folder(store.folder, store.folder):
        return None
    data = read_bytes(store.folder, path, _MAX_BYTES)
    try:
        found = Diagnostics.model_validate_json(data)
        _check(store, found)
    except ValidationError as error:
        raise RecordError(f"{path}: {explain(error)}; {_AGAIN}") from None
    except RecordError as error:
        raise RecordError(f"{path}: {error}; {_AGAIN}") from None
    return found


def _check(store: RunStore, diagnostics: Diagnostics) -> None:
    if diagnostics.identity != store.manifest.identity():
        raise RecordError("the diagnostics are of another run")
    if list(diagnostics.looked_at) != chosen(store.read_step(CLEAN_STEP)).tolist():
        raise RecordError(f"the diagnostics are not about the first {MOST} samples that are right")
    _check_signs(diagnostics)


def _check_signs(diagnostics: Diagnostics) -> None:
    """Refuse limits that are not ours, and signs that are left out or made up."""
    told = {sign.name: (sign.about, sign.limit) for sign in diagnostics.measured}
    if not told and not diagnostics.looked_at:
        return
    for name, (about, limit) in SIGNS.items():
        if name not in told:
            raise RecordError(f"the sign {name} is missing")
        if told[name] != (about, limit):
            raise RecordError(
                f"the sign {name} is about the {about} and has limit {limit:g}, not "
                f"about the {told[name][0]} with limit {told[name][1]:g}"
            )
    if unknown := sorted(told.keys() - SIGNS.keys()):
        raise RecordError(f"there is no sign {unknown[0]}")
