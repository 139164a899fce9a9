"""One run of a report, with what its sections need of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from leaderboards.diagnostics import Diagnostics, read_diagnostics
from leaderboards.entries import Entry, read_entry
from leaderboards.errors import one_line
from leaderboards.manifest import Manifest, StepInfo
from leaderboards.store import RunStore
from leaderboards.summary import Summary


@dataclass(frozen=True, eq=False)
class Subject:
    """A run as the report sees it.

    Attributes:
        entry: The run, checked and summed up.
        frames: The rows of its steps.
        diagnostics: Signs that attacks failed; None where nobody looked.
        slices: Groups of samples by the user, by sample id; None without.
    """

    entry: Entry
    frames: dict[str, pd.DataFrame]
    diagnostics: Diagnostics | None
    slices: pd.Series[str] | None = None

    @property
    def manifest(self) -> Manifest:
        """What was fixed before the run."""
        return self.entry.manifest

    @property
    def summary(self) -> Summary:
        """What it found."""
        return self.entry.summary

    @cached_property
    def attacks(self) -> tuple[StepInfo, ...]:
        """Its steps that attack."""
        return tuple(s for s in self.manifest.protocol.steps if s.kind == "attack")

    @cached_property
    def proofs(self) -> tuple[StepInfo, ...]:
        """Its steps that prove."""
        return tuple(s for s in self.manifest.protocol.steps if s.kind == "certificate")

    @property
    def smoothed(self) -> bool:
        """Whether it is about a smoothed classifier, and certifies with a probability."""
        return any("sigma" in step.parameters for step in self.proofs)

    @property
    def changed(self) -> bool:
        """Whether it is about changes in no norm ball: corruptions, or simple transformations."""
        protocol = self.manifest.protocol
        return protocol.corruption is not None or protocol.transformation is not None

    @property
    def kind(self) -> str:
        """What the run is about."""
        protocol = self.manifest.protocol
        if protocol.explanation is not None:
            return "explanations"
        if protocol.corruption is not None:
            return "common corruptions"
        if protocol.transformation is not None:
            return "simple transformations"
        return "smoothed predictions" if self.smoothed else "predictions"

    @property
    def name(self) -> str:
        """The model, as one line."""
        return one_line(self.manifest.model.name, 80)


def read_subject(folder: Path, slices: pd.Series[str] | None = None) -> Subject:
    """Read a run that anybody may have written.

    Raises:
        ContradictionError: A sample is both certified and broken: there is nothing to report.
        RecordError: It is not a run, or it does not agree with itself.
    """
    entry = read_entry(folder)
    store = RunStore.open(folder)
    return Subject(entry, store.read_steps(), read_diagnostics(store), slices)
