from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from record_makers import CROWN, PGD, a_frame, a_manifest, a_row

from leaderboards.errors import ContradictionError, RecordError
from leaderboards.listing import list_runs
from leaderboards.manifest import StepInfo
from leaderboards.statistics import clopper_pearson
from leaderboards.store import RunStore
from leaderboards.summary import Summary, summarise

APGD = StepInfo(name="apgd", kind="attack")


def open_or(sample: int, verdict: str | None, reason: str = "unknown") -> dict[str, Any]:
    """A row of a certificate, with its reason where it leaves the sample open."""
    return a_row(sample, verdict, detail=None if verdict else reason)


def settled_run(folder: Path) -> RunStore:
    """Two wrong, three broken (one by the later attack), two certified, one error, two open."""
    store = RunStore.create(folder, a_manifest((PGD, CROWN, APGD)))
    store.write_shard("clean", a_frame(*(a_row(i, "wrong" if i < 2 else None) for i in range(10))))
    store.write_shard(
        "pgd", a_frame(*(a_row(i, "broken" if i < 4 else None) for i in range(2, 10)))
    )
    crown = {4: "certified", 5: "certified", 6: "error"}
    store.write_shard("crown", a_frame(*(open_or(i, crown.get(i)) for i in range(4, 10))))
    store.write_shard("apgd", a_frame(*(a_row(i, "broken" if i == 9 else None) for i in (6, 7))))
    store.write_shard("apgd", a_frame(a_row(8), a_row(9, "broken")))
    return store


def test_counts_rates_and_costs(tmp_path: Path) -> None:
    summary = settled_run(tmp_path / "run").write_summary()
    assert summary.complete
    assert summary.counts.model_dump() == {
        "wrong": 2, "broken": 3, "certified": 2, "undecided": 2, "error": 1, "not_run": 0,
    }  # fmt: skip
    rates = (summary.clean_accuracy, summary.robust_accuracy, summary.certified_accuracy)
    # the certificate's error leaves a sample that no attack broke
    assert [(r.k, r.n) for r in rates if r] == [(8, 10), (5, 10), (2, 10)]
    assert summary.clean_accuracy is not None
    assert (summary.clean_accuracy.lower, summary.clean_accuracy.upper) == clopper_pearson(8, 10)
    assert [(s.name, s.kind, s.samples, s.settled, s.errors) for s in summary.steps] == [
        ("clean", "clean", 10, 2, 0),
        ("pgd", "attack", 8, 2, 0),
        ("crown", "certificate", 6, 2, 1),
        ("apgd", "attack", 4, 1, 0),
    ]
    assert summary.undecided_by is not None
    assert summary.undecided_by.model_dump() == {
        "unknown": 2, "rounding": 0, "timeout": 0, "unconfirmed": 0,
    }  # fmt: skip
    assert (summary.cost.forwards, summary.cost.backwards) == (84, 56)
    assert summary.cost.forwards_per_sample == 8.4
    assert summary.cost.seconds == 7.0
    written = (tmp_path / "run" / "summary.json").read_bytes()
    assert Summary.model_validate_json(written) == summary


def test_an_attack_that_fails_does_not_count_as_robust(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path, a_manifest(ids="0-3"))
    store.write_shard("clean", a_frame(a_row(0, "error"), *(a_row(i) for i in range(1, 4))))
    store.write_shard("pgd", a_frame(a_row(1, "error"), a_row(2, "broken"), a_row(3)))
    summary = summarise(store)
    assert (summary.counts.error, summary.counts.broken, summary.counts.undecided) == (2, 1, 1)
    assert summary.clean_accuracy is not None
    assert summary.robust_accuracy is not None
    assert (summary.clean_accuracy.k, summary.robust_accuracy.k) == (3, 1)
    assert summary.certified_accuracy is None


def test_what_was_not_run_is_null_and_never_zero(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path, a_manifest())
    empty = summarise(store)
    assert (empty.counts.not_run, empty.clean_accuracy, empty.robust_accuracy) == (10, None, None)
    store.write_shard("clean", a_frame(*(a_row(i, "wrong" if i == 0 else None) for i in range(4))))
    store.write_shard("pgd", a_frame(a_row(1, "broken"), a_row(2)))
    partial = summarise(store)
    assert not partial.complete
    assert partial.robust_accuracy is None
    assert partial.clean_accuracy is not None
    assert (partial.clean_accuracy.k, partial.clean_accuracy.n) == (3, 4)
    counts = partial.counts
    assert (counts.wrong, counts.broken, counts.undecided, counts.not_run) == (1, 1, 1, 7)


def test_a_row_without_its_clean_row_settles_nothing(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path, a_manifest((CROWN,), ids="0-1"))
    store.write_shard("crown", a_frame(a_row(0, "certified"), a_row(1)))
    summary = summarise(store)
    assert (summary.counts.not_run, summary.counts.certified, summary.complete) == (2, 0, False)


def test_certified_and_broken_stops_with_the_ids(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path, a_manifest((CROWN, PGD)))
    store.write_shard("clean", a_frame(*(a_row(i) for i in range(10))))
    store.write_shard("crown", a_frame(*(a_row(i, "certified") for i in (3, 5, 7))))
    store.write_shard("pgd", a_frame(*(a_row(i, "broken") for i in (5, 7, 8))))
    with pytest.raises(ContradictionError, match="sample 5, 7;") as caught:
        store.write_summary()
    assert caught.value.sample_ids == (5, 7)
    assert caught.value.exit_code == 7
    assert not (tmp_path / "summary.json").exists()
    assert "sample 5, 7;" in store.verify_bytes()[0]


def test_broken_within_the_certified_radius_stops(tmp_path: Path) -> None:
    """Though the radius is below eps, so that nothing says certified."""
    store = RunStore.create(tmp_path, a_manifest((PGD, CROWN)))
    store.write_shard("clean", a_frame(*(a_row(i) for i in range(3))))
    store.write_shard("pgd", a_frame(*(a_row(i, "broken", distance=0.05) for i in range(3))))
    radii = (0.04, 0.0500001, None)
    store.write_shard("crown", a_frame(*(a_row(i, radius=r) for i, r in enumerate(radii))))
    with pytest.raises(ContradictionError, match="sample 1;"):
        store.write_summary()


def test_a_certificate_may_break_and_reasons_are_kept_apart(tmp_path: Path) -> None:
    complete = StepInfo(name="complete", kind="certificate", parameters={"method": "complete"})
    store = RunStore.create(tmp_path, a_manifest((CROWN, complete)))
    store.write_shard("clean", a_frame(*(a_row(i, "wrong" if i == 9 else None) for i in range(10))))
    crown = [open_or(i, "certified" if i == 8 else None, "rounding: by 1e-9") for i in range(9)]
    store.write_shard("crown", a_frame(*crown))
    rows = [
        a_row(0, "broken", work=7),
        open_or(1, None, "timeout"),
        open_or(2, None, "timeout: 2000 subproblems"),
        open_or(3, None, "rounding"),
        open_or(4, None, "unconfirmed: its example is classified rightly"),
        a_row(5, "error", detail="error: no memory"),
        open_or(6, None),
        a_row(7, "certified", radius=0.1),
        a_row(8, "certified", radius=0.3),
    ]
    store.write_shard("complete", a_frame(*rows))
    summary = store.write_summary()
    assert store.verify_bytes() == []
    assert summary.undecided_by is not None
    assert summary.undecided_by.model_dump() == {
        "unknown": 1, "rounding": 1, "timeout": 2, "unconfirmed": 1,
    }  # fmt: skip
    counts = summary.counts
    assert (counts.broken, counts.certified, counts.undecided, counts.error) == (1, 2, 5, 1)
    rates = (summary.clean_accuracy, summary.robust_accuracy, summary.certified_accuracy)
    assert [r.k for r in rates if r] == [9, 8, 2]
    first, last = summary.steps[1:]
    assert first.left_open is not None
    assert (first.left_open.rounding, first.left_open.unknown) == (8, 0)
    assert (last.samples, last.audited, last.broken, last.certified, last.work) == (9, 1, 1, 1, 7)
    assert last.errors == 1
    assert summary.radius is not None
    assert (summary.radius.samples, summary.radius.median, summary.radius.maximum) == (2, 0.1, 0.3)


def test_the_last_certificate_gives_the_reason(tmp_path: Path) -> None:
    """A step that measures the radius gives none."""
    radius = CROWN.model_copy(update={"name": "radius"})
    store = RunStore.create(tmp_path, a_manifest((CROWN, radius), ids="0"))
    store.write_shard("clean", a_frame(a_row(0)))
    store.write_shard("crown", a_frame(open_or(0, None, "timeout")))
    store.write_shard("radius", a_frame(a_row(0, radius=0.01)))
    summary = store.write_summary()
    assert summary.undecided_by is not None
    assert summary.undecided_by.timeout == 1
    assert store.verify_bytes() == []


@pytest.mark.parametrize(("scope", "wanted"), [("open", 2), ("audit", 3), ("right", 3)])
def test_a_run_without_its_audit_is_not_complete(tmp_path: Path, scope: str, wanted: int) -> None:
    crown = CROWN.model_copy(update={"parameters": {"method": "crown", "samples": scope}})
    store = RunStore.create(tmp_path, a_manifest((PGD, crown), ids="0-3"))
    store.write_shard("clean", a_frame(a_row(0, "wrong"), *(a_row(i) for i in range(1, 4))))
    store.write_shard("pgd", a_frame(a_row(1, "broken"), a_row(2), a_row(3)))
    for count, sample in enumerate((3, 2, 1)):
        assert summarise(store).complete == (count >= wanted)
        store.write_shard("crown", a_frame(open_or(sample, None if sample == 1 else "certified")))
    assert summarise(store).complete


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (a_row(3, "certified", bound=None), "its bound is not positive"),
        (a_row(3, "certified", bound=0.0), "its bound is not positive"),
        (a_row(3, "certified", method=None), "by no method"),
        (a_row(3, "certified", radius=0.05), "its radius is below eps"),
        (a_row(3, radius=0.1), "it is not certified"),
        (a_row(3), "left open without a reason"),
        (a_row(3, detail="zero gradient"), "left open without a reason"),
        (a_row(3, "broken", distance=0.2), "distance is not within eps"),
    ],
)
def test_verify_holds_certificates_to_the_rules(
    tmp_path: Path, row: dict[str, Any], problem: str
) -> None:
    store = RunStore.create(tmp_path, a_manifest((CROWN,)))
    store.write_shard("clean", a_frame(*(a_row(i) for i in range(4))))
    good = [a_row(0, "certified"), open_or(1, None), a_row(2, "error")]
    store.write_shard("crown", a_frame(*good))
    assert store.verify_bytes() == []
    store.write_shard("crown", a_frame(row))
    assert any(problem in line for line in store.verify_bytes())


def test_a_sound_run_verifies(tmp_path: Path) -> None:
    store = settled_run(tmp_path / "run")
    assert [p.split("/")[-1] for p in store.verify_bytes()] == ["summary.json is missing"]
    store.write_summary()
    assert store.verify_bytes() == []


def test_verify_sees_a_summary_that_lies(tmp_path: Path) -> None:
    store = settled_run(tmp_path)
    store.write_summary()
    path = tmp_path / "summary.json"
    honest = json.loads(path.read_bytes())
    for key, value in (
        ("robust_accuracy", honest["clean_accuracy"]),
        ("counts", honest["counts"] | {"broken": 0, "undecided": 5}),
        ("steps", [s | {"content_sha256": "0" * 64} for s in honest["steps"]]),
        ("samples", 1000),
    ):
        path.write_text(json.dumps(honest | {key: value}))
        assert store.verify_bytes() == [f"{path}: {key} is not what the shards give"]
    path.write_text(json.dumps(honest | {"samples": "10"}))
    assert store.verify_bytes()[0].startswith(f"{path}: samples: ")


@pytest.mark.parametrize(
    ("step", "row", "problem"),
    [
        ("pgd", a_row(3, "broken", distance=0.1000001), "distance is not within eps"),
        ("pgd", a_row(3, "broken", distance=None), "distance is not within eps"),
        ("pgd", a_row(3, "broken", margin64=0.1), "its float64 margin is positive"),
        ("pgd", a_row(3, "broken", margin=0.1), "its margin is positive"),
        ("pgd", a_row(3, "broken", prediction=1), "the prediction is the label"),
        ("pgd", a_row(3, margin=-0.1), "sign and the prediction"),
        ("pgd", a_row(0), "ran on sample 0, which"),
        ("pgd", a_row(9), "ran on sample 9, which"),
        ("pgd", a_row(3, label=0, prediction=0), "another label for sample 3"),
        ("clean", a_row(8, prediction=0, margin=-0.1), "misclassified, but not wrong"),
        ("clean", a_row(8, "wrong", margin=0.1), "the margin is positive"),
    ],
)
def test_verify_sees_rows_that_break_the_rules(
    tmp_path: Path, step: str, row: dict[str, object], problem: str
) -> None:
    store = RunStore.create(tmp_path, a_manifest())
    store.write_shard("clean", a_frame(*(a_row(i, "wrong" if i < 2 else None) for i in range(8))))
    store.write_shard("pgd", a_frame(a_row(2, "broken")))
    assert store.verify_bytes() == []
    store.write_shard(step, a_frame(row))
    problems = store.verify_bytes()
    assert any(problem in line for line in problems), problems


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"iteration": 41}, "found after the last step"),
        ({"restart": 5}, "found after the last restart"),
        ({"forwards": 206}, "more passes than the protocol has"),
        ({"forwards": 0}, "not looked at"),
    ],
)
def test_verify_holds_rows_to_the_protocol(
    tmp_path: Path, change: dict[str, int], problem: str
) -> None:
    pgd = PGD.model_copy(update={"parameters": {"steps": 40, "restarts": 5}})
    store = RunStore.create(tmp_path, a_manifest(steps=(pgd,)))
    store.write_shard("clean", a_frame(a_row(2), a_row(3)))
    store.write_shard("pgd", a_frame(a_row(2, "broken", iteration=40, restart=4, forwards=205)))
    assert store.verify_bytes() == []
    store.write_shard("pgd", a_frame(a_row(3, "broken", **change)))
    assert any(problem in line for line in store.verify_bytes())


def test_verify_sees_strange_folders(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path, a_manifest())
    (tmp_path / "shards" / "fab").mkdir(parents=True)
    assert store.verify_bytes() == [f"{tmp_path / 'shards' / 'fab'} belongs to no step of this run"]


def test_listing_shows_damaged_runs_beside_whole_ones(tmp_path: Path) -> None:
    settled_run(tmp_path / "good")
    bad = RunStore.create(tmp_path / "bad", a_manifest())
    bad.write_shard("clean", a_frame(a_row(1))).write_bytes(b"")
    (tmp_path / "worse").mkdir()
    (tmp_path / "worse" / "manifest.json").write_text("{}")
    (tmp_path / "not-a-run").mkdir()
    runs = {run.folder.name: run for run in list_runs(tmp_path)}
    assert set(runs) == {"good", "bad", "worse"}
    assert runs["good"].summary is not None
    assert runs["good"].problem is None
    assert runs["bad"].manifest is not None
    assert runs["bad"].summary is None
    assert "Parquet" in (runs["bad"].problem or "")
    assert runs["worse"].manifest is None
    with pytest.raises(RecordError, match="no such folder"):
        list_runs(tmp_path / "nowhere")


def test_leaderboards_works_without_torch() -> None:
    names = sorted(p.stem for p in Path("leaderboards").glob("*.py") if p.stem != "__init__")
    imports = "; ".join(f"import leaderboards.{name}" for name in names)
    code = f"import sys; sys.modules['torch'] = None; {imports}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert "store" in names
