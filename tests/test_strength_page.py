"""The page of attack strength is read off what was measured, and says what was not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from attack_page import judged, page, weaker  # noqa: E402
from attack_strength import KEPT, PAGE, PARTS, names  # noqa: E402


def row(norm: str, within: float, ours: float = 1.0, **more: str) -> dict:
    return {"norm": norm, "within": within, "ours": ours, "theirs": 1.0, "robust": [3, 4], **more}


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([row("l2", 0.95), row("l2", 1.0)], "met"),
        ([row("l2", 0.94), row("l2", 1.0)], "missed"),
        ([row("l2", 1.0, 0.998)], "missed"),
        ([row("l2", 1.0, 0.9995)], "met"),
    ],
)
def test_the_criterion_is_worked_out(rows, verdict):
    line, *words = judged(rows).splitlines()
    assert line.endswith(f"| {verdict} |")
    assert any("**Missed** in l2" in text for text in words) == (verdict == "missed")
    assert f"| {3 * len(rows)} | {4 * len(rows)} |" in line


def test_the_two_projections_are_judged_apart():
    exact, published, *words = judged(
        [row("l2", 0.8), row("l2", 1.0, projection="shrink")]
    ).splitlines()
    assert "(the share is 80% to 80%)" in "".join(words)
    assert "| exact |" in exact
    assert exact.endswith("| missed |")
    assert "| as published |" in published
    assert published.endswith("| met |")


def test_an_attack_that_is_weaker_than_its_reference_is_named():
    of = {"attack": "square", "reference": "S", "model": "m", "norm": "l1", "measure": "robust"}
    told = weaker([{**of, "ours": 17, "theirs": 15, "ratio": 1.133}])
    assert " ".join(told.split()) == "**Missed** by square in l1: robust 17 on m, where S has 15."
    assert weaker([{**of, "ours": 15, "theirs": 15, "ratio": 1.0}]) == ""
    assert "**Missed** by square in l1: robust 17 on" in PAGE.read_text()


def test_the_page_is_that_of_what_was_measured():
    kept = {part: {} for part in PARTS} | json.loads(KEPT.read_text())
    assert PAGE.read_text() == page(kept, names())


def test_what_was_not_measured_is_said():
    kept = {part: {} for part in PARTS} | json.loads(KEPT.read_text())
    lost = next(iter(kept["linear"]))
    del kept["linear"][lost]
    alone = {part: rows if part == "linear" else [] for part, rows in names().items()}
    assert page(kept, alone).endswith(f"\n## Not measured\n\n- linear: {lost}\n")
    every = {part: list(kept[part]) for part in PARTS}
    assert "Not measured" not in page(kept, every)
