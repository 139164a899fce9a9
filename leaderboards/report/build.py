"""From runs to a report: the same sections for each, after a page of summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from leaderboards.errors import RecordError, one_line
from leaderboards.report import distance, failures, identity, limits, method, results, summarypage
from leaderboards.report.blocks import Block, Report, Section
from leaderboards.report.slices import check_slices, read_slices
from leaderboards.report.subject import Subject, read_subject

_Part = tuple[str, Callable[[Subject], Iterator[Block]]]
_PARTS: tuple[_Part, ...] = (
    ("Scope", identity.scope),
    ("Model", identity.model_identity),
    ("Data", identity.data_identity),
    ("Threat model", identity.threat),
    ("Method", method.method),
    ("What the verdicts rest on", method.assumptions),
    ("Results", results.results),
    ("Explanation certificates", distance.explanations),
    ("Radii and distances", distance.distances),
    ("Groups of samples", results.groups),
    ("Steps and cost", results.steps),
    ("Diagnostics", results.diagnostics),
    ("Sparsity and size", identity.sparsity),
    ("Failures", failures.failures),
    ("Limits", limits.limits),
    ("How to check and repeat it", limits.repeat),
)


def build(folders: Sequence[Path], slices: Path | None = None) -> Report:
    """Make the report of one or several runs of one model.

    Args:
        folders: Of the runs, at least one.
        slices: A CSV that puts samples into groups; None without.

    Raises:
        ContradictionError: A sample is both certified and broken.
        RecordError: A run cannot be trusted, they are of different models, or the slices are not
            about their samples; or a run is given twice.
    """
    groups = None if slices is None else read_slices(slices)
    subjects = [read_subject(folder, groups) for folder in folders]
    _check_distinct(subjects)
    for subject in subjects[1:]:
        if subject.manifest.model.sha256 != subjects[0].manifest.model.sha256:
            raise RecordError(
                f"{subjects[0].entry.folder} and {subject.entry.folder} are of different models: "
                "give each a report of its own"
            )
    for subject in subjects:
        if groups is not None and slices is not None:
            check_slices(groups, subject.entry, slices)
    first = subjects[0]
    summaries = [
        _section(f"Summary{_of(s, subjects)}", summarypage.summary_blocks(s), 1, f"summary-{i}")
        for i, s in enumerate(subjects, 1)
    ]
    parts = [section for i, s in enumerate(subjects, 1) for section in _parts(s, subjects, i)]
    weights = first.manifest.model.sha256
    version, latest = first.manifest.tool_version, max(s.manifest.created for s in subjects)
    return Report(
        title="Certification report",
        subtitle=f"{first.name} on {_data(subjects)}",
        created=latest,
        dated=f"run{'s' if len(subjects) > 1 else ''} begun on {latest:%d %B %Y}",
        sections=(*summaries, *parts),
        footer=f"{first.name}, weights {weights[:16]}, robustbench-c {one_line(version, 40)}",
    )


def _check_distinct(subjects: Sequence[Subject]) -> None:
    seen: dict[object, Path] = {}
    for subject in subjects:
        rows = tuple(step.content_sha256 for step in subject.summary.steps)
        run, folder = (
            (subject.manifest.run_id, subject.summary.identity, rows),
            subject.entry.folder,
        )
        if run in seen:
            raise RecordError(f"{seen[run]} and {folder} are the same run: give it once")
        seen[run] = folder


def _parts(subject: Subject, subjects: Sequence[Subject], number: int) -> Iterator[Section]:
    """The sections of one run; those that it has nothing to say in are left out."""
    yield Section(f"Details{_of(subject, subjects)}", (), 1, f"details-{number}")
    count = 0
    for title, part in _PARTS:
        if part is distance.explanations and subject.summary.explanation is None:
            continue
        if part is distance.distances and not distance.has_distances(subject):
            continue
        count += 1
        place = f"{number}.{count}" if len(subjects) > 1 else f"{count}"
        yield _section(f"{place} {title}", part(subject), 2, f"part-{number}-{count}")


def _section(title: str, blocks: Iterator[Block], level: int, anchor: str) -> Section:
    return Section(title, tuple(blocks), level, anchor)


def _of(subject: Subject, subjects: Sequence[Subject]) -> str:
    """What tells a run from the others."""
    if len(subjects) == 1:
        return ""
    return f" {subjects.index(subject) + 1} of {len(subjects)}: {subject.kind}"


def _data(subjects: Sequence[Subject]) -> str:
    return ", ".join(dict.fromkeys(one_line(s.manifest.data.name, 80) for s in subjects))
