"""Boards of many runs, without the runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from run_makers import write_run

from leaderboards.boards import Board, Row, boards_of
from leaderboards.entries import Entry, read_entry
from leaderboards.manifest import SizeInfo
from leaderboards.rates import Rate

SAMPLES = 1000


def many_entries(folder: Path, runs: int) -> list[Entry]:
    """One small run on disk, and as many like it as are asked for, each with other results."""
    write_run(folder, {0}, {1}, {2, 3}, name="net")
    entry, rng = read_entry(folder), np.random.default_rng(0)
    return [_like(entry, i, rng) for i in range(runs)]


def _like(entry: Entry, i: int, rng: np.random.Generator) -> Entry:
    kept, total = int(rng.integers(1, 100_000)), 100_000
    size = SizeInfo(
        weights=total,
        nonzero_weights=kept,
        nonzero_parameters=kept,
        macs=10**6,
        nonzero_macs=10**5,
        dense_bytes=4 * total,
        packed_bytes=8 * kept,
    )
    model = entry.manifest.model.model_copy(
        update={
            "name": f"fmnist-cnn-some-training-{i}",
            "sha256": f"{i:064x}",
            "size": size,
            "parameters": total + i,
            "card": {"recipe": f"recipe-{i % 20}", "threat": {"norm": "linf", "eps": 0.1}},
        }
    )
    run = f"fmnist-cnn-some-training-{i}-fashion-mnist-mini-pgd-complete-linf-0.1-{i:010x}"
    manifest = entry.manifest.model_copy(update={"model": model, "run_id": run})
    wrong, broken, proved = (int(n) for n in rng.integers(1, 300, 3))
    counts = entry.summary.counts.model_copy(
        update={
            "wrong": wrong,
            "broken": broken,
            "certified": proved,
            "undecided": SAMPLES - wrong - broken - proved,
        }
    )
    summary = entry.summary.model_copy(
        update={
            "counts": counts,
            "clean_accuracy": Rate.of(SAMPLES - wrong, SAMPLES),
            "robust_accuracy": Rate.of(SAMPLES - wrong - broken, SAMPLES),
            "certified_accuracy": Rate.of(proved, SAMPLES),
        }
    )
    return replace(entry, manifest=manifest, summary=summary)


def one_board(entries: list[Entry]) -> Board:
    """A board of them, in a plausible order of ranks."""
    (board,) = boards_of(entries[:1])
    rows = []
    for i, entry in enumerate(entries):
        found = entry.summary
        rates = {
            "clean": found.clean_accuracy,
            "robust": found.robust_accuracy,
            "certified": found.certified_accuracy,
        }
        ranks = {name: (1 + i // 2, len(entries) - i // 3) for name in rates}
        rows.append(Row(entry, rates, ranks))
    return replace(board, rows=tuple(rows))
