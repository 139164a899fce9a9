"""What a run found, in one small record; always rebuilt from the shards."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Final, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from leaderboards.cells import CODES, NONE, Cells, Codes, codes_of
from leaderboards.changed import (
    CorruptionSummary,
    TransformationSummary,
    corruption_summary,
    transformation_summary,
)
from leaderboards.columns import content_sha256
from leaderboards.diagnostics import Knowledge, RedFlag, knowledge_of, read_diagnostics, red_flags
from leaderboards.distances import Distances, Radii, distance_summary, radius_summary
from leaderboards.draws import DrawsSummary, draws_summary
from leaderboards.explained import ExplanationSummary, clean_correct, explanation_summary
from leaderboards.manifest import Count, Record, Sha256, Slug
from leaderboards.rates import Rate
from leaderboards.settle import count_reasons, open_reasons
from leaderboards.shard import narrow_rows
from leaderboards.verdicts import CLEAN_STEP, StepKind, Verdict

if TYPE_CHECKING:
    from leaderboards.store import RunStore

SUMMARY_SCHEMA: Final = 1
Seconds = Annotated[float, Field(ge=0)]


class Counts(Record):
    """The number of samples with each verdict."""

    wrong: Count
    """Misclassified without an attack."""
    broken: Count
    """Broken by an attack."""
    certified: Count
    """Proven robust."""
    undecided: Count
    """Neither broken nor proven robust by any step."""
    error: Count
    """A step failed, and no other settled the sample."""
    not_run: Count
    """Some step has yet to run on them."""


class Reasons(Record):
    """The number of samples that certificates left open, by what they said of them."""

    unknown: Count
    """The method ran to its end and could not prove it."""
    rounding: Count
    """Proved up to rounding only."""
    timeout: Count
    """A budget ended first."""
    unconfirmed: Count
    """A counterexample was named, but did not hold when it was re-checked."""


class StepSummary(Record):
    """What one step did, and what it cost."""

    name: Slug
    """Name of the step."""
    kind: StepKind
    """What it can settle."""
    samples: Count
    """Samples it has a row for."""
    untried: Count = 0
    """Of an attack: those that it spent nothing on, since no budget was left for them, or since it
    is for samples alone that others came near to break. Absent in older records."""
    audited: Count
    """Those of them that an earlier step had settled: a certificate that is checked on them."""
    settled: Count
    """Samples whose verdict is this step's."""
    certified: Count
    """Those of them that it proved."""
    broken: Count
    """Those of them that it broke."""
    left_open: Reasons | None
    """Of a certificate: the samples it left open that no earlier step had settled, by reason."""
    errors: Count
    """Samples it failed on."""
    forwards: Count
    """Forward passes of one sample, in all."""
    backwards: Count
    """Backward passes of one sample, in all."""
    knowledge: Knowledge | None = None
    """What an attack needs to know of the model: gradients, logits, predicted classes, or nothing.
    Absent in older records, and of steps that are no attacks."""
    queries: Count | None = None
    """Of an attack: forward passes that no gradient followed, in all. Absent likewise."""
    work: Count
    """Subproblems it bounded, in all."""
    seconds: Seconds
    """Time in all."""
    narrow: Count = 0
    """Samples whose rows were made in smaller pieces than usual, for want of memory, so that their
    last bits can differ from those of a run with more. Absent in older records."""
    content_sha256: Sha256
    """Hash of its rows, time left out: equal for every batch size, order, shards and resume, but
    where rows are `narrow`."""


class Cost(Record):
    """What the run cost: the sum over its steps."""

    forwards: Count
    """Forward passes of one sample, in all."""
    backwards: Count
    """Backward passes of one sample, in all."""
    work: Count
    """Subproblems bounded, in all."""
    seconds: Seconds
    """Time in all, summed over the workers."""
    diagnostics_seconds: Seconds | None = None
    """Time that it took to look for red flags, not among `seconds`; null where nobody looked.
    Absent in older records."""
    forwards_per_sample: Annotated[float, Field(ge=0)] | None
    """Forward passes divided by the samples begun; null if none was."""
    backwards_per_sample: Annotated[float, Field(ge=0)] | None
    """Backward passes divided by the samples begun; null if none was."""


class Summary(Record):
    """What a run found. certified_accuracy <= true robust accuracy <= robust_accuracy."""

    schema_version: Literal[1] = SUMMARY_SCHEMA
    """Format of this file."""
    run_id: Slug
    """Name of the run."""
    identity: Sha256
    """The manifest's identity."""
    protocol_sha256: Sha256
    """Hash of the protocol."""
    samples: Count
    """Samples of the run, whether run or not."""
    complete: bool
    """Whether every sample has a verdict, and every audit and radius is there."""
    counts: Counts
    """Samples with each verdict."""
    undecided_by: Reasons | None
    """The undecided samples by what the last certificate said; null where none can prove."""
    clean_accuracy: Rate | None
    """Correct without an attack; of an incomplete run, among the samples begun."""
    robust_accuracy: Rate | None
    """Correct, and neither broken by any step nor failed on by an attack; null if incomplete, and
    where the run is about explanations."""
    certified_accuracy: Rate | None
    """Proven robust; null likewise, and where no step can prove anything."""
    radius: Radii | None
    """Quantiles of the certified radius, of the samples that have one; null if there is none."""
    distance: Distances | None = None
    """Quantiles of the smallest distance that was found; null if the nearest was not looked for."""
    explanation: ExplanationSummary | None = None
    """How far explanations can be bent; null where the run is about predictions."""
    flags: tuple[RedFlag, ...] | None = None
    """Signs that the attacks failed rather than that the model held; null if not diagnosed."""
    reliable: bool | None = None
    """Whether there is no such sign: whether robust_accuracy can be trusted; null likewise."""
    corruption: CorruptionSummary | None = None
    """Accuracy under common corruptions; null where the run is not about them. `robust_accuracy`
    is then that of samples that are right under every one."""
    transformation: TransformationSummary | None = None
    """Which simple transformations break samples; null where the run is no search for them."""
    other_draws: DrawsSummary | None = None
    """What holds on other draws of a random model; null where the model is no mean over draws."""
    cost: Cost
    """What it cost."""
    steps: tuple[StepSummary, ...]
    """The steps in their order, `clean` first."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What the rows tell a reader to know, beside the manifest's notices."""
        return tuple(
            f"{step.narrow} of {step.samples} rows of {step.name} were made in smaller pieces than "
            "usual, for want of memory: last bits, and with them verdicts, can differ from those "
            "of a run with more"
            for step in self.steps
            if step.narrow
        )

    def to_bytes(self) -> bytes:
        """The summary as it is written to disk."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def summarise(store: RunStore) -> Summary:
    """Return the summary of what the shards of a run hold now.

    Raises:
        ContradictionError: A sample is both certified and broken (also: within its radius).
        RecordError: A shard is not valid.
    """
    store = store.snapshot()
    manifest, frames, result = store.manifest, store.read_steps(), store.verdicts()
    cells = {step: store.cells(step) for step in store.steps}
    verdict = codes_of(result["verdict"], list(Verdict))
    settled_by = codes_of(result["settled_by"], list(store.steps))
    steps = tuple(
        _step_summary(store, step, cells[step], result.index, verdict, settled_by)
        for step in store.steps
    )
    counts = Counts(
        **{str(v): int((verdict == CODES[v]).sum()) for v in Verdict},
        not_run=int((verdict == NONE).sum()),
    )
    clean = frames[CLEAN_STEP]
    attacked = [cells[step] for step in store.steps if store.kind(step) != "certificate"]
    failed = np.concatenate([each.ids[each.says(Verdict.ERROR)] for each in attacked])
    complete, n = counts.not_run == 0 and _all_looked_at(store, cells), len(result)
    left = result.index[verdict == CODES[Verdict.ERROR]]
    robust = counts.certified + counts.undecided + int((~left.isin(failed)).sum())
    certificates = [f for s, f in frames.items() if store.kind(s) == "certificate"]
    explained = manifest.protocol.explanation
    accuracy = complete and explained is None
    reasoned = [cells[step] for step in _reasoned(store)]
    undecided = result.index[verdict == CODES[Verdict.UNDECIDED]]
    diagnostics = read_diagnostics(store)
    flags = None if diagnostics is None else red_flags(diagnostics, result, manifest.protocol.steps)
    return Summary(
        run_id=manifest.run_id,
        identity=manifest.identity(),
        protocol_sha256=manifest.protocol_sha256,
        samples=n,
        complete=complete,
        counts=counts,
        undecided_by=_undecided_by(reasoned, undecided) if reasoned else None,
        clean_accuracy=Rate.of(int(clean_correct(clean, explained).sum()), len(clean)),
        robust_accuracy=Rate.of(robust, n) if accuracy else None,
        certified_accuracy=Rate.of(counts.certified, n) if accuracy and certificates else None,
        radius=radius_summary(certificates),
        distance=distance_summary(store, frames),
        explanation=explanation_summary(store, frames, result, complete),
        flags=flags,
        reliable=None if flags is None else not flags,
        corruption=corruption_summary(store, frames, complete),
        transformation=transformation_summary(store, frames),
        other_draws=draws_summary(store, frames),
        cost=_cost(steps, len(clean), None if diagnostics is None else diagnostics.seconds),
        steps=steps,
    )


def _reasoned(store: RunStore) -> list[str]:
    """The certificates that say why they leave a sample open: those with a `method`."""
    steps = store.manifest.protocol.steps
    return [s.name for s in steps if s.kind == "certificate" and "method" in s.parameters]


def _all_looked_at(store: RunStore, cells: dict[str, Cells]) -> bool:
    """Whether the steps whose samples are more than the open ones have rows for all of them."""
    scopes = {
        step.name: "right" if step.minimal else step.parameters.get("samples")
        for step in store.manifest.protocol.steps
    }
    clean = cells[CLEAN_STEP]
    every, broken = clean.ids, np.empty(0, dtype=np.int64)
    right = every[clean.verdict == NONE]
    for step, rows in cells.items():
        wanted = {"audit": broken, "right": right, "all": every}.get(str(scopes.get(step)))
        if wanted is not None and np.setdiff1d(wanted, rows.ids).size:
            return False
        broken = np.concatenate([broken, rows.ids[rows.says(Verdict.BROKEN)]])
    return True


def _step_summary(
    store: RunStore, step: str, rows: Cells, index: pd.Index[int], verdict: Codes, by: Codes
) -> StepSummary:
    """Summarise a step; `verdict` and `by` are those of the samples in `index`."""
    kind, place, table = store.kind(step), store.steps.index(step), store.read_table(step)
    mine, before = by == place, (by != NONE) & (by < place)
    audited = before[index.get_indexer(pd.Index(rows.ids))]
    left = count_reasons(rows.reason[(rows.verdict == NONE) & ~audited])
    untried = (rows.number("forwards") == 0) & (rows.verdict == NONE)
    return StepSummary(
        name=step,
        kind=kind,
        samples=rows.ids.size,
        untried=int(untried.sum()) if kind == "attack" else 0,
        audited=int(audited.sum()),
        settled=int(mine.sum()),
        certified=int((mine & (verdict == CODES[Verdict.CERTIFIED])).sum()),
        broken=int((mine & (verdict == CODES[Verdict.BROKEN])).sum()),
        left_open=Reasons(**left) if step in _reasoned(store) else None,
        errors=int(rows.says(Verdict.ERROR).sum()),
        forwards=rows.total("forwards"),
        backwards=rows.total("backwards"),
        queries=_queries(rows.frame) if kind == "attack" else None,
        knowledge=_knowledge(store, step),
        work=rows.total("work"),
        seconds=math.fsum(rows.frame["seconds"].to_numpy()),
        narrow=narrow_rows(table),
        content_sha256=content_sha256(table),
    )


def _queries(frame: pd.DataFrame) -> int:
    """Forward passes that no gradient followed: every gradient has a pass of its own."""
    asked = frame["forwards"].to_numpy() - frame["backwards"].to_numpy()
    return int(asked.clip(min=0).sum())


def _knowledge(store: RunStore, step: str) -> Knowledge | None:
    """What an attack's step says that it needs."""
    told = [each for each in store.manifest.protocol.steps if each.name == step]
    return knowledge_of(told[0]) if told else None


def _undecided_by(certificates: list[Cells], undecided: pd.Index[int]) -> Reasons:
    ids, codes = open_reasons(certificates)
    return Reasons(**count_reasons(codes[np.isin(ids, undecided)]))


def _cost(steps: tuple[StepSummary, ...], begun: int, diagnostics: float | None) -> Cost:
    forwards = sum(step.forwards for step in steps)
    backwards = sum(step.backwards for step in steps)
    return Cost(
        forwards=forwards,
        backwards=backwards,
        work=sum(step.work for step in steps),
        seconds=math.fsum(step.seconds for step in steps),
        diagnostics_seconds=diagnostics,
        forwards_per_sample=forwards / begun if begun else None,
        backwards_per_sample=backwards / begun if begun else None,
    )
