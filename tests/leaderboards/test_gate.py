"""The gate: what fails, what does not, what cannot be compared, and what it tells."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from record_makers import PGD, a_frame, a_manifest, a_row  # type: ignore[import-not-found]
from run_makers import STEPS, write_run  # type: ignore[import-not-found]
from test_explained_records import bent, good, proved  # type: ignore[import-not-found]

from leaderboards.baseline import Baseline, Group, read_baseline
from leaderboards.errors import NotComparableError, RecordError
from leaderboards.gate import Limits, check, least_loss
from leaderboards.gate_report import gate_json, gate_junit, gate_markdown, rule, verdict_line
from leaderboards.manifest import ModelInfo
from leaderboards.statistics import mcnemar_worse
from leaderboards.store import RunStore

HOSTILE = "</details><script>alert(1)</script> | @all [x](http://e.vil) `\x1b[31m\ufffe\u202e"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Of 20 samples: 15 certified; 6 of them lost; the same with one lost."""
    root = tmp_path_factory.mktemp("gate")
    certified = set(range(5, 20))
    for name, left in {"old": 0, "worse": 6, "near": 1}.items():
        write_run(root / name, {0}, {1}, certified - set(range(5, 5 + left)), 20)
    return root


@pytest.fixture(scope="module")
def sides(folders):
    return {name: read_baseline(folders / name) for name in ("old", "worse", "near")}


def test_a_drop_fails_and_names_its_samples(sides):
    outcome = check(sides["old"], sides["worse"])
    found = {m.name: (m.before.k, m.after.k, m.lost, m.gained, m.verdict) for m in outcome.metrics}
    assert found == {
        "clean": (19, 19, 0, 0, "ok"),
        "robust": (18, 18, 0, 0, "ok"),
        "certified": (15, 9, 6, 0, "regressed"),
    }
    certified = outcome.metrics[2]
    assert certified.p == pytest.approx(2**-6)
    assert certified.adjusted == pytest.approx(3 * 2**-6)
    assert [flip.sample_id for flip in outcome.flips] == list(range(5, 11))
    flip = outcome.flips[0]
    assert (flip.label, flip.before, flip.before_by) == ("shoe", "certified", "crown")
    assert (flip.after, flip.after_by) == ("undecided", None)
    assert (flip.lost, flip.gained) == (("certified",), ())
    assert verdict_line(outcome).startswith("regressed: certified: 30.00 points lower (6 samples")


def test_what_failed_is_listed_first(tmp_path):
    sides = []
    for name, broken, certified in (("a", set(), {*range(8, 20)}), ("b", {3}, {1, 8, 9})):
        store = write_run(tmp_path / name, set(), broken, certified, 20)
        sides.append(read_baseline(store.folder))
    flips = check(*sides).flips
    assert [flip.sample_id for flip in flips] == [*range(10, 20), 3, 1]
    assert flips[-2].lost == ("robust",)
    assert flips[-1].gained == ("certified",)


def test_one_lost_sample_is_chance_and_gains_never_fail(sides):
    outcome = check(sides["old"], sides["near"])
    assert (len(outcome.flips), outcome.failures) == (1, ())
    assert check(sides["worse"], sides["old"]).failures == ()
    assert check(sides["worse"], sides["old"]).flips[0].gained == ("certified",)
    assert check(sides["old"], sides["old"]).flips == ()


@pytest.mark.parametrize(
    ("limits", "fails"),
    [
        (Limits(alpha=0.04), False),
        (Limits(alpha=0.02, metrics=("certified",)), True),
        (Limits(metrics=("clean", "robust")), False),
        (Limits(tolerance=29.9), True),
        (Limits(tolerance=30), False),
        (Limits(tolerance=30, max_lost=6), False),
        (Limits(tolerance=30, max_lost=5), True),
    ],
)
def test_limits(sides, limits, fails):
    outcome = check(sides["old"], sides["worse"], limits)
    assert bool(outcome.failures) == fails
    told = outcome.metrics[-1].verdict
    assert told == ("regressed" if fails else "tolerated" if limits.tolerance else "ok")


def test_least_loss_is_where_the_test_begins_to_fail():
    for alpha in (0.05, 0.01, 0.3, 1 / 16):
        for metrics in (1, 2, 3):
            least = least_loss(alpha, metrics)
            assert (
                metrics * mcnemar_worse(least, 0) <= alpha < metrics * mcnemar_worse(least - 1, 0)
            )


def test_a_new_red_flag_makes_robust_accuracy_untrusted(sides):
    old, run = flagged(sides["old"]), flagged(sides["near"], "masked", "random")
    outcome = check(old, run)
    why = "robust accuracy cannot be trusted: new red flags masked, random"
    assert outcome.failures == (why,)
    assert [m.verdict for m in outcome.metrics] == ["ok", "not trusted", "ok"]
    assert verdict_line(outcome) == f"regressed: {why}"
    assert "; or by a new red flag" in rule(outcome)
    assert "not trusted" in gate_markdown(outcome)
    (failure,) = ET.fromstring(gate_junit(outcome)).iter("failure")
    assert failure.attrib["message"] == why
    content = json.loads(gate_json(outcome))
    assert (content["regressed"], content["new_flags"]) == (True, ["masked", "random"])
    allowed = check(old, run, Limits(allow_unreliable=True))
    assert allowed.failures == ()
    assert allowed.metrics[1].verdict == "not trusted"
    assert "red flag" not in rule(allowed)
    assert check(old, run, Limits(metrics=("clean", "certified"))).failures == ()


def test_known_red_flags_do_not_fail(sides):
    known, run = flagged(sides["old"], "masked"), sides["near"]
    assert check(known, flagged(run, "masked")).failures == ()
    assert check(known, flagged(run, "masked", "random")).new_flags == ("random",)
    assert check(known, flagged(run)).failures == ()


def test_red_flags_that_nobody_looked_for_are_not_new(sides):
    old, run = sides["old"], sides["near"]
    red = flagged(run, "masked")
    with pytest.raises(NotComparableError, match="make the baseline with diagnostics"):
        check(old, red)
    with pytest.raises(NotComparableError, match="make the run with diagnostics"):
        check(flagged(old), run)
    for sides in ((old, red), (flagged(old), run)):
        allowed = check(*sides, Limits(allow_unreliable=True))
        assert (allowed.failures, allowed.new_flags) == ((), ())
        assert check(*sides, Limits(metrics=("clean",))).failures == ()
    assert check(old, flagged(run)).failures == ()  # none is red, so none is new
    neither = check(old, run)
    assert neither.failures == ()
    assert "neither was diagnosed: masked gradients would not be noticed" in neither.notes


def flagged(side, *names):
    """A side that was diagnosed."""
    return side.model_copy(update={"flags": names})


def test_incomparable_pairs_say_why(sides, tmp_path):
    old = sides["old"]

    def refused(words, **changes):
        other = replace_in(old, **changes)
        with pytest.raises(NotComparableError, match=words):
            check(old, other)

    data, protocol = old.data, old.protocol
    refused("other data: .*dddddddddddd.*eeeeeeeeeeee", data={"sha256": "e" * 64})
    refused("other samples: 0-19 in the baseline, 0-18,20", data={"ids": "0-18,20"})
    refused("other verdict rules: 2 in the baseline, 1 in the run", rules=1)
    threat = protocol.threat.model_copy(update={"eps": 0.2})
    refused("threat.eps is 0.1 in the baseline, 0.2 in the run", protocol={"threat": threat})
    refused("steps is pgd, crown in the baseline, pgd in the", protocol={"steps": STEPS[:1]})
    fewer = PGD.model_copy(update={"parameters": {**PGD.parameters, "steps": 9}})
    refused(r"step pgd\.parameters\.steps is 40 .* 9 in", protocol={"steps": (fewer, STEPS[1])})
    refused("other labels", labels=("0", "1-19", ""))
    assert data.ids == "0-19"


def replace_in(old, **changes):
    fields = {}
    for name, value in changes.items():
        there = getattr(old, name)
        fields[name] = there.model_copy(update=value) if isinstance(value, dict) else value
    if "protocol" in fields:
        fields["protocol_sha256"] = fields["protocol"].sha256
    return old.model_copy(update=fields)


def test_halves_and_runs_that_hang_on_speed_are_no_measure(tmp_path):
    half = RunStore.create(tmp_path / "half", a_manifest(STEPS))
    half.write_shard("clean", a_frame(*[a_row(i) for i in range(10)]))
    with pytest.raises(NotComparableError, match="not complete"):
        read_baseline(half.folder)
    hasty = write_run(tmp_path / "hasty", set(), set(), set(), reproducible=False)
    with pytest.raises(NotComparableError, match="not reproducible"):
        read_baseline(hasty.folder)
    with pytest.raises(RecordError, match="missing"):
        read_baseline(tmp_path / "nowhere")


def test_records_that_contradict_themselves_are_no_measure(tmp_path):
    store = write_run(tmp_path / "run", broken={1}, certified={2})
    told = (store.folder / "summary.json").read_text()
    (store.folder / "summary.json").write_text(told.replace('"broken": 1', '"broken": 0'))
    with pytest.raises(RecordError, match="not what the shards give"):
        read_baseline(store.folder)
    row = a_row(1, "certified", prediction=None, margin=None, work=1)
    store.write_shard("crown", a_frame(row))
    with pytest.raises(RecordError, match="both certified and broken: sample 1"):
        read_baseline(store.folder)


def test_explanations_are_gated_by_their_own_names(tmp_path):
    good(tmp_path / "good").write_summary()
    worse = good(
        tmp_path / "worse",
        **{
            "explain-attack": [bent(0, 0.3, "broken", prediction=2, margin=-0.5)]
            + [bent(i, 0.35, "broken") for i in (1, 2, 3)],
            "explain-linear": [proved(i, 0.6) for i in range(4)],
        },
    )
    worse.write_summary()
    sides = [read_baseline(tmp_path / name) for name in ("good", "worse")]
    outcome = check(*sides, Limits(alpha=0.4))
    found = {m.told: (m.before.k, m.after.k, m.verdict) for m in outcome.metrics}
    assert found == {
        "clean": (3, 3, "ok"),
        "not bent": (3, 0, "regressed"),
        "certified": (2, 0, "ok"),
    }
    assert outcome.flips[0].lost == ("not bent", "certified")
    path = tmp_path / "b.json"
    path.write_bytes(sides[0].to_bytes())
    assert read_baseline(path) == sides[0]
    (only,) = check(*sides, Limits(metrics=("robust",))).metrics
    assert only.told == "not bent"


def test_a_metric_that_there_is_not(sides, tmp_path):
    for name in ("a", "b"):
        store = RunStore.create(tmp_path / name, a_manifest((PGD,)))
        for step in ("clean", "pgd"):
            store.write_shard(step, a_frame(*[a_row(i) for i in range(10)]))
        store.write_summary()
    both = [read_baseline(tmp_path / name) for name in ("a", "b")]
    assert [m.name for m in check(*both).metrics] == ["clean", "robust"]
    with pytest.raises(NotComparableError, match="nothing of certified; it has clean, robust"):
        check(*both, Limits(metrics=("certified",)))


def test_baseline_file_says_what_the_run_says(folders, sides, tmp_path):
    path = tmp_path / "baseline.json"
    path.write_bytes(sides["old"].to_bytes())
    assert read_baseline(path) == sides["old"]
    assert path.read_bytes() == read_baseline(folders / "old").to_bytes()
    assert '"ids": "5-19"' in path.read_text()
    found, settled = sides["old"].right(), sides["old"].settled()
    assert {rate: int(right.sum()) for rate, right in found.items()} == {
        "clean": 19,
        "robust": 18,
        "certified": 15,
    }
    assert settled["verdict"].tolist()[:3] == ["wrong", "broken", "undecided"]
    assert settled["settled_by"].isna().sum() == 3


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("cannot read", {"schema_version": 2}),
        ("protocol_sha256", {"protocol_sha256": "0" * 64}),
        ("identity is not", {"identity": "0" * 64}),
        ("identity_fields", {"identity_fields": {}}),
        ("20 .* not of the run|not of the run", {"clean": "1-20"}),
        ("do not agree", {"clean": "0-19"}),
        ("have to be written as", {"clean": "1,2-19"}),
        ("not ranges", {"clean": "../../etc/passwd"}),
        ("labels: sample 3 is missing", {"labels": ["", "0-2,4-19", ""]}),
        ("labels are not", {"labels": ["", "0-19"]}),
        ("a sample is there twice", {"labels": ["0-3", "3-19", ""]}),
        ("cannot be settled by clean", {"verdicts": [["certified", "clean", "0-19"]]}),
        ("cannot be settled by fab", {"verdicts": [["broken", "fab", "0-19"]]}),
        ("cannot be settled by no step", {"verdicts": [["broken", None, "0-19"]]}),
        ("sample 0 is missing", {"verdicts": []}),
        ("not of the run", {"verdicts": [["broken", "pgd", "0-99999"]] * 10_000}),
        ("at most", {"verdicts": [["broken", "pgd", ""]] * 10_001}),
        ("Extra inputs", {"surprise": 1}),
        ("valid integer", {"rules": "2"}),
    ],
)
def test_a_hostile_baseline_is_refused(sides, tmp_path, words, change):
    content = json.loads(sides["old"].to_bytes())
    if "verdicts" in change:
        keys = ("verdict", "settled_by", "ids")
        change = {"verdicts": [dict(zip(keys, g, strict=True)) for g in change["verdicts"]]}
    path = tmp_path / "b.json"
    path.write_text(json.dumps(content | change))
    with pytest.raises(RecordError, match=words) as told:
        read_baseline(path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b"NaN", b"[" * 10_000, b'{"rules":1,"rules":2}']
)
def test_a_file_that_is_no_baseline(tmp_path, content):
    path = tmp_path / "b.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match="is no baseline"):
        read_baseline(path)


def test_the_page_names_every_field():
    text = (Path(__file__).parents[2] / "docs" / "gate.md").read_text()
    names = [*Baseline.model_fields, *Group.model_fields]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_reports_are_whole_and_inert(sides):
    model = ModelInfo(**{**sides["worse"].model.model_dump(), "name": HOSTILE})
    classes = (HOSTILE[:200], *(f"{HOSTILE}{i}" for i in range(2)))
    old, run = (
        side.model_copy(update={"data": side.data.model_copy(update={"classes": classes})})
        for side in (sides["old"], sides["worse"])
    )
    outcome = check(old, run.model_copy(update={"model": model}))
    text = gate_markdown(outcome)
    for sign in ("<script", "</details><", "@all", "[x](", "http:", "\x1b", "\u202e"):
        assert sign not in text
    assert "**regressed**" in text
    assert text.count("\n| ") == 2 * 2 + 3 + 6
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {row.count(" | ") for row in rows} == {8, 5}
    suite = ET.fromstring(gate_junit(outcome))[0]
    assert suite.attrib["tests"] == "3"
    assert suite.attrib["failures"] == "1"
    names = [case.attrib["name"] for case in suite.iter("testcase")]
    assert names == ["clean", "robust", "certified"]
    (failure,) = suite.iter("failure")
    assert "30.00 points lower" in failure.attrib["message"]
    content = json.loads(gate_json(outcome))
    assert content["regressed"] is True
    assert len(content["flips"]) == 6
    assert content["metrics"][2]["after"]["k"] == 9


def test_long_lists_are_cut_in_markdown_alone(tmp_path):
    sides = []
    for name, certified in (("old", set(range(300))), ("new", set())):
        store = write_run(tmp_path / name, set(), set(), certified, 300)
        sides.append(read_baseline(store.folder))
    classes = tuple("|" * 400 + str(i) for i in range(3))
    outcome = check(
        *(
            side.model_copy(update={"data": side.data.model_copy(update={"classes": classes})})
            for side in sides
        )
    )
    assert "and 200 more, in the JSON file" in gate_markdown(outcome)
    assert len(gate_markdown(outcome)) < 65_536
    assert len(json.loads(gate_json(outcome))["flips"]) == 300


def test_notes_say_in_what_the_runs_differ(sides):
    fields = {**sides["old"].identity_fields, "seed": 7}
    outcome = check(sides["old"], sides["near"].model_copy(update={"identity_fields": fields}))
    assert any("differ in seed (0 before, 7 now)" in note for note in outcome.notes)
    assert any("the weights of both are the same" in note for note in outcome.notes)
    assert any("at least 6 (30 points) have to be lost" in note for note in outcome.notes)


def test_baseline_is_of_the_run_that_was_read(sides):
    assert isinstance(sides["old"], Baseline)
    assert sides["old"].model.card is None
    assert sides["old"].flags is None
