"""Small manifests and rows for the tests of records."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandas as pd

from leaderboards.diagnostics import Measured
from leaderboards.manifest import DataInfo, Manifest, ModelInfo, Protocol, StepInfo, ThreatInfo
from leaderboards.signs import SIGNS
from leaderboards.verdicts import RULES_VERSION

PGD = StepInfo(name="pgd", kind="attack", parameters={"steps": 40, "step_size": 0.01})
CROWN = StepInfo(name="crown", kind="certificate", parameters={"method": "crown"})


def a_manifest(steps: tuple[StepInfo, ...] = (PGD,), ids: str = "0-9", **changes: Any) -> Manifest:
    threat = ThreatInfo(norm="linf", eps=0.1, sha256="b" * 64)
    protocol = Protocol(threat=threat, steps=steps, rules=RULES_VERSION)
    model = ModelInfo(
        name="cnn", architecture="cnn", sha256="a" * 64, parameters=10, normalisation="none"
    )
    data = DataInfo(
        name="mini",
        split="test",
        sha256="d" * 64,
        ids=ids,
        shape=(1, 2, 2),
        classes=("shirt", "shoe", "bag"),
        box_lower=(0.0, 0.0),
        box_upper=(1.0, 1.0),
        box_sha256="b" * 64,
    )
    fields: dict[str, Any] = {
        "run_id": "run-1",
        "created": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "tool_version": "0.1.0",
        "model": model,
        "data": data,
        "protocol": protocol,
        "protocol_sha256": protocol.sha256,
        "seed": 0,
        "tiles": (32,),
        "batch_size": 64,
        "device": "cpu",
        "device_name": "a CPU",
        "dtype": "float32",
        "threads": 1,
        "versions": {"torch": "2.13.0"},
        "platform": "Linux",
        "reproducible": True,
    }
    return Manifest(**(fields | changes))


def a_row(sample_id: int, verdict: str | None = None, **changes: Any) -> dict[str, Any]:
    """A row of class 1; missed where the verdict says so."""
    missed = verdict in ("wrong", "broken")
    row: dict[str, Any] = {
        "sample_id": sample_id,
        "label": 1,
        "verdict": verdict,
        "prediction": 2 if missed else 1,
        "margin": -0.5 if missed else 0.5,
        "margin64": -0.5 if verdict == "broken" else None,
        "distance": 0.1 if verdict == "broken" else None,
        "restart": 0 if verdict == "broken" else None,
        "iteration": 7 if verdict == "broken" else None,
        "bound": 0.25 if verdict == "certified" else None,
        "radius": None,
        "method": "crown" if verdict == "certified" else None,
        "work": 0,
        "votes": None,
        "forwards": 3,
        "backwards": 2,
        "seconds": 0.25,
        "detail": None,
    }
    return row | changes


def a_frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def all_signs(looked_at: int, **held: tuple[int, ...]) -> tuple[Measured, ...]:
    """Every sign, holding of no sample but those given by its name, with _ for -."""
    return tuple(
        Measured(
            name=name,
            meaning="a sign",
            about=about,
            limit=limit,
            held=(ids := held.get(name.replace("-", "_"), ())),
            value=len(ids) / looked_at,
        )
        for name, (about, limit) in SIGNS.items()
    )
