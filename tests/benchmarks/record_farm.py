"""Makes many records that nobody ran: whole, valid, and each of another model.

    python tests/benchmarks/record_farm.py OUT --runs 1000 --samples 1000

Steps clean, PGD, IBP and CROWN; what models get right goes by their skill and the samples' ease.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leaderboards.diagnostics import Diagnostics, Measured, chosen, write_diagnostics
from leaderboards.manifest import (
    DataInfo,
    Manifest,
    ModelInfo,
    Protocol,
    SizeInfo,
    StepInfo,
    ThreatInfo,
)
from leaderboards.signs import SIGNS
from leaderboards.store import RunStore
from leaderboards.verdicts import RULES_VERSION

EPS, STEPS, RESTARTS, CLASSES = 0.1, 40, 5, 10
PROTOCOL = Protocol(
    threat=ThreatInfo(norm="linf", eps=EPS, sha256="b" * 64),
    steps=(
        StepInfo(name="pgd", kind="attack", parameters={"steps": STEPS, "restarts": RESTARTS}),
        StepInfo(name="ibp", kind="certificate", parameters={"method": "ibp", "samples": "open"}),
        StepInfo(
            name="crown", kind="certificate", parameters={"method": "crown", "samples": "open"}
        ),
    ),
    rules=RULES_VERSION,
)


def make_farm(folder: Path, runs: int, samples: int, seed: int = 0) -> list[Path]:
    """Write `runs` records of the samples 0 to `samples` - 1 under a folder; return theirs."""
    rng = np.random.default_rng(seed)
    ease, labels = rng.random(samples), rng.integers(0, CLASSES, samples)
    folders = []
    for number in range(runs):
        manifest = _manifest(number, runs, samples)
        store = RunStore.create(folder / manifest.run_id, manifest)
        _write(store, np.random.default_rng((seed, number)), number / runs, ease, labels)
        folders.append(store.folder)
    return folders


def _manifest(number: int, runs: int, samples: int) -> Manifest:
    weights = 166_248
    kept = int(weights * (1 - 0.9 * (number % 10) / 10))
    name = f"model-{number:04d}"
    model = ModelInfo(
        name=name,
        architecture="cnn-small",
        sha256=f"{number:064x}",
        parameters=weights + 158,
        normalisation="none",
        card={
            "name": name,
            "recipe": f"recipe-{number % 7}",
            "threat": {"norm": "linf", "eps": EPS},
            "classes": [f"class {i}" for i in range(CLASSES)],
            "licence": "MIT",
        },
        size=SizeInfo(
            weights=weights,
            nonzero_weights=kept,
            nonzero_parameters=kept + 158,
            macs=609_384,
            nonzero_macs=kept * 3,
            dense_bytes=4 * weights,
            packed_bytes=6 * kept,
        ),
    )
    return Manifest(
        run_id=f"{name}-pgd-crown",
        created=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number),
        tool_version="0.1.0",
        model=model,
        data=DataInfo(
            name="synthetic",
            split="test",
            sha256="d" * 64,
            ids=f"0-{samples - 1}",
            shape=(1, 28, 28),
            classes=tuple(f"class {i}" for i in range(CLASSES)),
            box_lower=(0.0, 0.0),
            box_upper=(1.0, 1.0),
            box_sha256="b" * 64,
        ),
        protocol=PROTOCOL,
        protocol_sha256=PROTOCOL.sha256,
        seed=0,
        tiles=(32, 64),
        batch_size=256,
        device="cpu",
        device_name="CPU",
        dtype="float32",
        threads=1,
        versions={"python": "3.11.7", "torch": "2.13.0"},
        platform="Linux x86_64",
        reproducible=True,
    )


def _write(store: RunStore, rng: np.random.Generator, skill: float, ease: Any, labels: Any) -> None:
    """Margins fall from clean to attacked to proved; what is below 0 is lost there."""
    n = len(ease)
    clean = 0.3 + 0.4 * skill + ease - rng.random(n)
    attacked = clean - 0.4 * rng.random(n)
    proved = attacked - 0.5 * rng.random(n)
    ids = np.arange(n)
    rows = {"sample_id": ids, "label": labels, "seconds": rng.random(n) / 100}
    whole = pd.DataFrame(rows).assign(
        verdict=None, prediction=labels, margin=clean, margin64=np.nan, distance=np.nan,
        restart=None, iteration=None, bound=np.nan, radius=np.nan, method=None, work=0,
        votes=None, forwards=1, backwards=0, detail=None,
    )  # fmt: skip
    missed = (labels + 1) % CLASSES
    wrong, broken = clean <= 0, attacked <= 0
    store.write_shard(
        "clean",
        whole.assign(
            verdict=np.where(wrong, "wrong", None), prediction=np.where(wrong, missed, labels)
        ),
    )
    store.write_shard(
        "pgd",
        whole.assign(
            verdict=np.where(broken, "broken", None),
            prediction=np.where(broken, missed, labels),
            margin=attacked,
            margin64=np.where(broken, attacked, np.nan),
            distance=np.where(broken, EPS, np.nan),
            restart=pd.array(np.where(broken, ids % RESTARTS, None), dtype="Int32"),
            iteration=pd.array(np.where(broken, ids % STEPS, None), dtype="Int32"),
            forwards=np.where(broken, 1 + ids % STEPS, RESTARTS * (STEPS + 1)),
            backwards=np.where(broken, ids % STEPS, RESTARTS * STEPS),
        )[~wrong],
    )
    left = ~wrong & ~broken
    for step, bound in (("ibp", proved - 0.2), ("crown", proved)):
        held = bound > 0
        store.write_shard(
            step,
            whole.assign(
                verdict=np.where(held, "certified", None),
                prediction=None,
                margin=np.nan,
                bound=bound,
                method=step,
                work=1,
                forwards=0,
                detail=np.where(held, None, "unknown"),
            )[left],
        )
        left = left & ~held
    write_diagnostics(store, _diagnostics(store))
    store.write_summary()


def _diagnostics(store: RunStore) -> Diagnostics:
    looked = tuple(int(i) for i in chosen(store.read_step("clean")))
    signs = tuple(
        Measured(name=name, meaning="a sign", about=about, limit=limit, held=(), value=0.0)
        for name, (about, limit) in SIGNS.items()
    )
    return Diagnostics(
        identity=store.manifest.identity(),
        looked_at=looked,
        measured=signs,
        forwards=640,
        backwards=64,
        seconds=0.1,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=1000)
    asked = parser.parse_args()
    made = make_farm(asked.out, asked.runs, asked.samples)
    print(f"{len(made)} runs of {asked.samples} samples in {asked.out}")
