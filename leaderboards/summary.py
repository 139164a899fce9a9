"""What a run found, in one small record; always rebuilt from the shards."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Final, Literal, get_args

import pandas as pd
from pydantic import Field

from leaderboards.changed import (
    CorruptionSummary,
    TransformationSummary,
    corruption_summary,
    transformation_summary,
)
from leaderboards.columns import content_sha256, to_frame
from leaderboards.diagnostics import RedFlag, read_diagnostics, red_flags
from leaderboards.distances import Distances, Radii, distance_summary, radius_summary
from leaderboards.draws import DrawsSummary, draws_summary
from leaderboards.explained import ExplanationSummary, clean_correct, explanation_summary
from leaderboards.manifest import Count, Record, Sha256, Slug
from leaderboards.rates import Rate
from leaderboards.settle import count_reasons, open_reasons, sample_verdicts
from leaderboards.verdicts import CLEAN_STEP, StepKind, Verdict

if TYPE_CHECKING:
    from leaderboards.store import RunStore

SUMMARY_SCHEMA: Final = 1
Knowledge = Literal["white-box", "score", "decision", "none"]
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
    content_sha256: Sha256
    """Hash of its rows, time left out: equal for every batch size, order, shards and resume."""


class Cost(Record):
    """What the run cost: the sum over its steps."""

    forwards: Count
    """Forward passes of one sample, in all."""
    backwards: Count
    """Backward passes of one sample, in all."""
    work: Count
    """Subproblems bounded, in all."""
    seconds: Seconds
    """Time in all."""
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

    def to_bytes(self) -> bytes:
        """The summary as it is written to disk."""
        return (self.model_dump_json(indent=2) + "\n").encode()


def summarise(store: RunStore) -> Summary:
    """Return the summary of what the shards of a run hold now.

    Raises:
        ContradictionError: A sample is both certified and broken (also: within its radius).
        RecordError: A shard is not valid.
    """
    manifest = store.manifest
    tables = {step: store.read_table(step) for step in store.steps}
    frames = {step: to_frame(table) for step, table in tables.items()}
    samples = manifest.data.sample_ids
    result = sample_verdicts(frames, samples)
    steps = tuple(
        _step_summary(
            step,
            store.kind(step),
            frames,
            result,
            content_sha256(tables[step]),
            step in _reasoned(store),
            _knowledge(store, step),
        )
        for step in store.steps
    )
    counts = Counts(
        **{str(v): int((result["verdict"] == v).sum()) for v in Verdict},
        not_run=int(result["verdict"].isna().sum()),
    )
    clean = frames[CLEAN_STEP]
    attacked = [f for s, f in frames.items() if store.kind(s) != "certificate"]
    failed = pd.concat(attacked).loc[lambda rows: rows["verdict"].isin([Verdict.ERROR])]
    complete, n = counts.not_run == 0 and _all_looked_at(store, frames), int(samples.size)
    spared = result["verdict"].isin([Verdict.ERROR]) & ~result.index.isin(failed["sample_id"])
    robust = counts.certified + counts.undecided + int(spared.sum())
    certificates = [f for s, f in frames.items() if store.kind(s) == "certificate"]
    explained = manifest.protocol.explanation
    accuracy = complete and explained is None
    reasoned = [frames[step] for step in _reasoned(store)]
    diagnostics = read_diagnostics(store)
    flags = None if diagnostics is None else red_flags(diagnostics, result)
    return Summary(
        run_id=manifest.run_id,
        identity=manifest.identity(),
        protocol_sha256=manifest.protocol_sha256,
        samples=n,
        complete=complete,
        counts=counts,
        undecided_by=_undecided_by(reasoned, result) if reasoned else None,
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
        cost=_cost(steps, len(clean)),
        steps=steps,
    )


def _reasoned(store: RunStore) -> list[str]:
    """The certificates that say why they leave a sample open: those with a `method`."""
    steps = store.manifest.protocol.steps
    return [s.name for s in steps if s.kind == "certificate" and "method" in s.parameters]


def _all_looked_at(store: RunStore, frames: dict[str, pd.DataFrame]) -> bool:
    """Whether the steps whose samples are more than the open ones have rows for all of them."""
    scopes = {
        step.name: "right" if step.minimal else step.parameters.get("samples")
        for step in store.manifest.protocol.steps
    }
    clean = frames[CLEAN_STEP]
    every, broken = set(clean["sample_id"]), set[int]()
    right = set(clean["sample_id"][clean["verdict"].isna()])
    for step, frame in frames.items():
        wanted = {"audit": broken, "right": right, "all": every}.get(str(scopes.get(step)), set())
        if wanted - set(frame["sample_id"]):
            return False
        broken |= set(frame["sample_id"][frame["verdict"].isin([Verdict.BROKEN])])
    return True


def _step_summary(
    step: str,
    kind: StepKind,
    frames: dict[str, pd.DataFrame],
    result: pd.DataFrame,
    content: str,
    reasoned: bool,
    knowledge: Knowledge | None,
) -> StepSummary:
    frame, order = frames[step], list(frames)
    mine = result["settled_by"] == step
    before = result["settled_by"].isin(order[: order.index(step)])
    audited = frame["sample_id"].isin(result.index[before])
    reasons = open_reasons([frame[~audited]]) if reasoned else None
    return StepSummary(
        name=step,
        kind=kind,
        samples=len(frame),
        untried=int(((frame["forwards"] == 0) & frame["verdict"].isna()).sum())
        if kind == "attack"
        else 0,
        audited=int(audited.sum()),
        settled=int(mine.sum()),
        certified=int((mine & (result["verdict"] == Verdict.CERTIFIED)).sum()),
        broken=int((mine & (result["verdict"] == Verdict.BROKEN)).sum()),
        left_open=None if reasons is None else Reasons(**count_reasons(reasons)),
        errors=int(frame["verdict"].isin([Verdict.ERROR]).sum()),
        forwards=int(frame["forwards"].sum()),
        backwards=int(frame["backwards"].sum()),
        queries=_queries(frame) if kind == "attack" else None,
        knowledge=knowledge,
        work=int(frame["work"].sum()),
        seconds=math.fsum(frame["seconds"]),
        content_sha256=content,
    )


def _queries(frame: pd.DataFrame) -> int:
    """Forward passes that no gradient followed: every gradient has a pass of its own."""
    return int((frame["forwards"] - frame["backwards"]).clip(lower=0).sum())


def _knowledge(store: RunStore, step: str) -> Knowledge | None:
    """What an attack's step says that it needs; PGD's and those on explanations say nothing."""
    told = next((s.parameters for s in store.manifest.protocol.steps if s.name == step), {})
    found = [known for known in get_args(Knowledge) if known == told.get("knowledge")]
    return found[0] if found else ("white-box" if store.kind(step) == "attack" else None)


def _undecided_by(certificates: list[pd.DataFrame], result: pd.DataFrame) -> Reasons:
    undecided = result.index[result["verdict"] == Verdict.UNDECIDED]
    reasons = open_reasons(certificates)
    return Reasons(**count_reasons(reasons[reasons.index.isin(undecided)]))


def _cost(steps: tuple[StepSummary, ...], begun: int) -> Cost:
    forwards = sum(step.forwards for step in steps)
    backwards = sum(step.backwards for step in steps)
    return Cost(
        forwards=forwards,
        backwards=backwards,
        work=sum(step.work for step in steps),
        seconds=math.fsum(step.seconds for step in steps),
        forwards_per_sample=forwards / begun if begun else None,
        backwards_per_sample=backwards / begun if begun else None,
    )
