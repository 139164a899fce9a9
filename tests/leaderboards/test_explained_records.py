"""Records of explanations: a schema of their own, and the old ones as they were."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from record_makers import PGD, a_frame, a_manifest, a_row

from leaderboards import shard
from leaderboards.columns import EXPLANATIONS, PREDICTIONS, content_sha256, to_table
from leaderboards.errors import ContradictionError, RecordError
from leaderboards.manifest import (
    CriterionInfo,
    ExplanationInfo,
    FeatureInfo,
    Manifest,
    StepInfo,
    parse_manifest,
)
from leaderboards.pairs import compare
from leaderboards.store import RunStore

ATTACK = StepInfo(name="explain-attack", kind="attack", parameters={"steps": 9, "restarts": 1})
PROOF = StepInfo(
    name="explain-linear", kind="certificate", parameters={"method": "linear", "samples": "right"}
)
EXTRA = [c.name for c in EXPLANATIONS.columns[len(PREDICTIONS.columns) :]]


def explained_manifest(
    threshold: float = 0.1, ids: str = "0-3", asked: dict | None = None, **changes
) -> Manifest:
    info = ExplanationInfo(
        kind="gradient",
        of="logit",
        steps=1,
        criterion=CriterionInfo(measure="cosine", threshold=threshold),
        k=3,
        **(asked or {}),
    )
    base = a_manifest((ATTACK, PROOF), ids).protocol
    protocol = base.model_copy(update={"explanation": info})
    fields = {"protocol": protocol, "protocol_sha256": protocol.sha256, **changes}
    return a_manifest((ATTACK, PROOF), ids, **fields)


def row(sample: int, verdict: str | None = None, **changes) -> dict:
    """A row of the attack, open unless said."""
    plain = a_row(sample, None) | dict.fromkeys(EXTRA) | {"verdict": verdict}
    return plain | changes


def bent(sample: int, far: float, verdict: str | None = None, **changes) -> dict:
    found = {"explanation_distance": far, "explanation_distance64": far}
    point = {"distance": 0.1, "restart": 0, "iteration": 3}
    return row(sample, verdict) | point | found | changes


def proved(sample: int, bound: float, verdict: str | None = None, **changes) -> dict:
    box = dict.fromkeys(EXTRA[3:], 1.0) | {"cosine": 1 - bound, "top_k": 0.5, "signs": 0.25}
    detail = None if verdict else "unknown"
    unknown = {"prediction": None, "margin": None, "detail": detail, "method": "linear"}
    return row(sample, verdict, explanation_bound=bound, **unknown) | box | changes


def clean(ids=range(4)) -> list[dict]:
    return [row(i) for i in ids]


def write(store: RunStore, rows: dict[str, list[dict]]) -> RunStore:
    for step, some in rows.items():
        store.write_shard(step, a_frame(*some))
    return store


def good(folder, **changes) -> RunStore:
    rows = {
        "clean": [row(0, prediction=2, margin=-0.5), *clean(range(1, 4))],
        "explain-attack": [
            bent(0, 0.3, "broken", prediction=2, margin=-0.5),
            bent(1, 0.05),
            bent(2, 0.0),
            bent(3, 0.01),
        ],
        "explain-linear": [
            proved(0, 0.6),
            proved(1, 0.1, "certified"),
            proved(2, 0.05, "certified"),
            proved(3, 0.4),
        ],
    }
    return write(RunStore.create(folder, explained_manifest()), rows | changes)


def test_protocols_of_predictions_keep_their_bytes() -> None:
    """As in test_manifest, where the hash is pinned: what is absent is not written."""
    written = json.loads(a_manifest().to_bytes())
    assert "explanation" not in written["protocol"]
    assert "explanation" not in a_manifest().protocol.model_dump()


def test_the_content_hash_of_a_prediction_shard_is_pinned() -> None:
    """A change of this hash makes all shards written so far unreadable as repetitions."""
    table = to_table(a_frame(a_row(0), a_row(1, "broken")))
    assert (
        content_sha256(table) == "44fb0a821482e1e2e2adc26cdc28ad350755ad00d2b17c576bf4fa9afc1f5883"
    )


def test_the_manifest_comes_back_and_its_explanation_is_in_the_hash() -> None:
    manifest = explained_manifest()
    assert parse_manifest(manifest.to_bytes(), "m") == manifest
    hashes = {explained_manifest(t).protocol_sha256 for t in (0.1, 0.2)}
    assert len(hashes | {a_manifest((ATTACK, PROOF)).protocol_sha256}) == 3


def test_a_summary_says_how_far_from_both_sides(tmp_path) -> None:
    store = good(tmp_path / "run")
    summary = store.write_summary()
    assert store.verify_bytes() == []
    found = summary.explanation
    assert summary.complete
    assert summary.clean_accuracy.k == 3  # sample 0 is misclassified, and explained all the same
    assert summary.robust_accuracy is None
    assert (found.bent.k, found.certified.k, found.undecided.k) == (1, 2, 1)
    assert found.attack.median == 0.01
    assert found.certificate.median == 0.1
    assert found.ratio.samples == 3
    assert found.ratio.median == 2.0
    assert found.metrics["signs"] == 0.25


def test_the_best_of_two_certificates_counts(tmp_path) -> None:
    more = PROOF.model_copy(update={"name": "second"})
    base = explained_manifest(ids="0")
    protocol = base.protocol.model_copy(update={"steps": (ATTACK, PROOF, more)})
    manifest = base.model_copy(update={"protocol": protocol, "protocol_sha256": protocol.sha256})
    rows = {"clean": clean([0]), "explain-attack": [bent(0, 0.0)]}
    rows |= {"explain-linear": [proved(0, 0.5)], "second": [proved(0, 0.2)]}
    summary = write(RunStore.create(tmp_path / "run", manifest), rows).write_summary()
    assert summary.explanation.certificate.median == 0.2
    assert summary.explanation.metrics["cosine"] == 0.8


@pytest.mark.parametrize(
    ("attack", "proof"),
    [
        (bent(1, 0.2, "broken"), proved(1, 0.1, "certified")),
        (bent(1, 0.05), proved(1, 0.04, "certified")),  # neither side of the threshold
        (bent(1, 0.5, "broken"), proved(1, 0.4)),
    ],
)
def test_an_attack_beyond_a_certificate_stops_everything(tmp_path, attack, proof) -> None:
    store = RunStore.create(tmp_path / "run", explained_manifest(ids="1"))
    write(store, {"clean": clean([1]), "explain-attack": [attack], "explain-linear": [proof]})
    with pytest.raises(ContradictionError) as caught:
        store.write_summary()
    assert caught.value.sample_ids == (1,)


def test_rounding_alone_is_no_contradiction(tmp_path) -> None:
    attack = bent(1, 0.05, explanation_distance64=0.03)
    rows = {"clean": clean([1]), "explain-attack": [attack]}
    rows |= {"explain-linear": [proved(1, 0.04, "certified")]}
    write(RunStore.create(tmp_path / "run", explained_manifest(ids="1")), rows).write_summary()


@pytest.mark.parametrize(
    ("step", "rows", "message"),
    [
        ("clean", [row(0, "wrong")], "verdict 'wrong' cannot come"),
        ("explain-linear", [proved(0, 0.5, "broken")], "verdict 'broken' cannot come"),
        ("explain-linear", [proved(0, 0.5, cosine=1.5)], "cosine is beyond 1"),
        ("explain-linear", [proved(0, 0.5, cosine=-1.5)], "cosine is beyond 1"),
        ("explain-linear", [proved(0, 0.5, top_k=1.01)], "top_k is beyond 1"),
        ("explain-linear", [proved(0, 0.5, signs=-0.1)], "signs is negative"),
        ("explain-linear", [proved(0, 0.5, width_max=float("inf"))], "width_max is not finite"),
        ("explain-linear", [proved(0, -0.5)], "explanation_bound is negative"),
        ("explain-linear", [proved(0, 0.5, explanation_distance=0.1)], "cannot come from"),
        ("explain-attack", [bent(0, 0.5, lipschitz=0.1)], "lipschitz cannot come from"),
        ("clean", [row(0, explanation_distance=0.0)], "explanation_distance cannot come"),
    ],
)
def test_rows_that_cannot_be_are_refused(tmp_path, step, rows, message) -> None:
    store = RunStore.create(tmp_path / "run", explained_manifest())
    with pytest.raises(RecordError, match=message):
        store.write_shard(step, a_frame(*rows))


def test_each_kind_of_run_has_its_own_columns(tmp_path) -> None:
    plain = RunStore.create(tmp_path / "plain", a_manifest((PGD,)))
    with pytest.raises(RecordError, match="unknown columns"):
        plain.write_shard("clean", a_frame(row(0)))
    explained = RunStore.create(tmp_path / "explained", explained_manifest())
    with pytest.raises(RecordError, match="missing columns"):
        explained.write_shard("clean", a_frame(a_row(0)))


@pytest.mark.parametrize(
    ("step", "row_", "problem"),
    [
        ("explain-attack", bent(0, 0.05, "broken"), "not beyond the threshold"),
        ("explain-attack", bent(0, 0.3), "beyond the threshold, but not bent"),
        ("explain-attack", bent(0, 0.3, "broken", distance=0.2), "not within eps"),
        (
            "explain-attack",
            bent(0, 0.3, "broken", prediction=0, margin=-1.0),
            "prediction is not the clean one",
        ),
        ("explain-attack", bent(0, 0.0, iteration=10), "after the last step"),
        ("explain-attack", bent(0, 0.0, restart=1), "after the last restart"),
        ("explain-linear", proved(0, 0.3, "certified"), "not within the threshold"),
        ("explain-linear", proved(0, 0.05), "but it is not certified"),
        ("explain-linear", proved(0, 0.3, detail=None), "without a reason"),
        ("explain-linear", proved(0, 0.05, "certified", method=None), "by no method"),
        ("explain-linear", proved(0, 0.3, cosine=0.9), "not what its box says"),
        ("explain-linear", proved(0, 0.3, deviation_l2=0.5), "deviations contradict"),
        ("explain-linear", proved(0, 0.3, width_mean=2.0), "widths contradict"),
        ("explain-linear", proved(0, 0.3, sup_norm=2.0), "norms contradict"),
    ],
)
def test_rules_of_rows(tmp_path, step, row_, problem) -> None:
    rows = {"clean": clean([0]), "explain-attack": [bent(0, 0.0)]}
    rows |= {"explain-linear": [proved(0, 0.9)], step: [row_]}
    store = write(RunStore.create(tmp_path / "run", explained_manifest(ids="0")), rows)
    store.write_summary()
    assert any(problem in line for line in store.verify_bytes())


def test_a_tampered_summary_shows(tmp_path) -> None:
    store = good(tmp_path / "run")
    store.write_summary()
    path = tmp_path / "run" / "summary.json"
    told = json.loads(path.read_text())
    told["explanation"]["metrics"]["cosine"] = 1.0
    path.write_text(json.dumps(told))
    assert store.verify_bytes() == [f"{path}: explanation is not what the shards give"]


def test_two_runs_compare_by_what_was_bent(tmp_path) -> None:
    first, second = good(tmp_path / "a"), good(tmp_path / "b")
    samples, pairs = compare(first, second)
    assert samples == 4
    assert {p.rate: p.first for p in pairs} == {"clean": 3, "not bent": 3, "certified": 2}
    other = RunStore.create(tmp_path / "c", explained_manifest(0.2))
    with pytest.raises(RecordError, match="same protocol"):
        compare(first, other)


LIPSCHITZ = {"lipschitz_budget": 5}
STEEP = {"local_lipschitz_lower": [0.5, 1.0, 0.0], "local_lipschitz_upper": [0.5, 3.0, None]}


def listed(sample: int, **changes) -> dict:
    return proved(sample, 0.5, **(STEEP | changes))


def test_lists_come_back_and_are_in_the_hash(tmp_path) -> None:
    """Shards, resumes and repeated samples leave the hash as it is; an entry does not."""
    hashes = []
    for name, last, cut in (("a", 3.0, 4), ("b", 3.0, 2), ("c", 3.5, 4)):
        store = RunStore.create(tmp_path / name, explained_manifest(asked=LIPSCHITZ))
        changed, nothing = {"local_lipschitz_upper": [0.5, last, 0.0]}, dict.fromkeys(STEEP)
        rows = [listed(0), listed(1, **changed), proved(2, 0.5, **nothing), listed(3)]
        for some in (rows[:cut], rows[cut - 1 :]):  # one sample is in both
            store.write_shard("explain-linear", a_frame(*some))
        frame = store.read_step("explain-linear").set_index("sample_id")
        assert list(frame.at[1, "local_lipschitz_upper"]) == [0.5, last, 0.0]
        assert frame.at[2, "local_lipschitz_upper"] is None
        hashes.append(content_sha256(store.read_table("explain-linear")))
    assert hashes[0] == hashes[1] != hashes[2]


def test_what_is_not_asked_for_changes_no_hash() -> None:
    told = json.loads(explained_manifest().to_bytes())["protocol"]["explanation"]
    assert "lipschitz_budget" not in told
    asked = explained_manifest(asked=LIPSCHITZ)
    assert parse_manifest(asked.to_bytes(), "m") == asked
    assert asked.protocol_sha256 != explained_manifest().protocol_sha256
    assert (
        explained_manifest().protocol_sha256
        == "9363a11cfb39ce8335dec24612899dc8366e51def8dbf91ea0a5c5db6a6261d2"
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([listed(0, local_lipschitz_upper=[1.0, 1.0])], "2 entries where there have to be 3"),
        ([listed(0, local_lipschitz_upper=[1.0, 1.0, float("inf")])], "is not finite"),
        ([listed(0, local_lipschitz_lower=[-1.0, 0.0, 0.0])], "is negative"),
        ([listed(0, local_lipschitz_lower=[0.6, 0.0, 0.0])], "is above local_lipschitz_upper"),
        ([listed(0, local_lipschitz_lower=None)], "go together"),
        ([listed(0, local_lipschitz_upper="high")], "not of its type"),
        ([listed(0, local_lipschitz_upper=1.0)], "not of its type"),
        ([bent(0, 0.5, **STEEP)], "cannot come from a step of kind attack"),
    ],
)
def test_lists_that_cannot_be_are_refused(tmp_path, rows, message) -> None:
    store = RunStore.create(tmp_path / "run", explained_manifest(asked=LIPSCHITZ))
    step = "explain-attack" if "attack" in message else "explain-linear"
    with pytest.raises(RecordError, match=message):
        store.write_shard(step, a_frame(*rows))


def test_lists_longer_than_they_may_be_are_not_read(tmp_path) -> None:
    store = RunStore.create(tmp_path / "run", explained_manifest(asked=LIPSCHITZ))
    schema, long = store.layout.schema, [[0.0] * 100_000] * 2
    table = to_table(a_frame(listed(0), listed(1)), store.layout)
    for name in STEEP:
        place = schema.get_field_index(name)
        table = table.set_column(place, schema.field(name), pa.array(long))
    data = shard.encode(table, store.manifest.identity(), "explain-linear")
    with pytest.raises(RecordError, match="claims 200000 entries"):
        shard.decode(data, store.manifest.identity(), "explain-linear", 4, store.layout)


MONOTONE = {
    "monotone": (FeatureInfo(place=0, name="age"), FeatureInfo(place=2, name="sex=[b]x[/b]"))
}


def test_shares_of_monotone_features_are_of_all_certificates_together(tmp_path) -> None:
    steps = (PROOF, PROOF.model_copy(update={"name": "second"}))
    base = explained_manifest(asked=MONOTONE, ids="0-3")
    protocol = base.protocol.model_copy(update={"steps": steps})
    manifest = base.model_copy(update={"protocol": protocol, "protocol_sha256": protocol.sha256})
    store = RunStore.create(tmp_path / "run", parse_manifest(manifest.to_bytes(), "m"))
    signs = {"explain-linear": [[1, 0], [2, 0], None, [-1, -1]], "second": [[1, -1], [0, 0]] * 2}
    store.write_shard("clean", a_frame(*[row(i, monotone=None) for i in range(4)]))
    for step, lists in signs.items():
        store.write_shard(step, a_frame(*[proved(i, 0.5, monotone=v) for i, v in enumerate(lists)]))
    age, sex = store.write_summary().explanation.monotone
    assert (age.name, age.increasing.k, age.decreasing.k) == ("age", 3, 2)
    assert (sex.increasing.k, sex.decreasing.k, sex.decreasing.n) == (0, 3, 4)
    assert store.verify_bytes() == []


@pytest.mark.parametrize(
    ("signs", "message"),
    [([1], "1 entries"), ([3, 0], "has the entry 3"), ([None, 0], "has the entry None")],
)
def test_signs_that_cannot_be_are_refused(tmp_path, signs, message) -> None:
    store = RunStore.create(tmp_path / "run", explained_manifest(asked=MONOTONE))
    with pytest.raises(RecordError, match=message):
        store.write_shard("explain-linear", a_frame(proved(0, 0.5, monotone=signs)))


def test_features_out_of_order_are_refused() -> None:
    twisted = {"monotone": MONOTONE["monotone"][::-1]}
    with pytest.raises(ValueError, match="ascending order"):
        explained_manifest(asked=twisted)
