"""Whether a run is reliable follows from what was measured and from the verdicts."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from pydantic import ValidationError
from record_makers import CROWN, PGD, a_frame, a_manifest, a_row, all_signs

from leaderboards.diagnostics import (
    Diagnostics,
    Measured,
    read_diagnostics,
    red_flags,
    write_diagnostics,
)
from leaderboards.entries import read_entry
from leaderboards.errors import RecordError
from leaderboards.manifest import StepInfo
from leaderboards.store import RunStore

LOOKED_AT = tuple(range(10))


def a_sign(held, about="sample", limit=0.1, **changes):
    fields = {
        "name": "zero-gradient",
        "meaning": "no gradient",
        "about": about,
        "limit": limit,
        "held": held,
        "value": None if held is None else len(held) / len(LOOKED_AT),
    }
    return Measured(**(fields | changes))


def diagnostics(*signs, **changes):
    fields = {
        "identity": "a" * 64,
        "looked_at": LOOKED_AT,
        "measured": signs,
        "forwards": 1,
        "backwards": 1,
        "seconds": 0.5,
    }
    return Diagnostics(**(fields | changes))


def verdicts(**ids):
    said = pd.DataFrame({"verdict": "undecided", "settled_by": None}, index=range(20))
    for verdict, samples in ids.items():
        said.loc[list(samples), "verdict"] = verdict.split("_by_")[0]
        said.loc[list(samples), "settled_by"] = verdict.split("_by_")[-1]
    return said


SQUARE = StepInfo(name="square", kind="attack", parameters={"knowledge": "score"})
STEPS = (PGD, SQUARE, CROWN)


def shares(sign, **ids):
    found = red_flags(diagnostics(sign), verdicts(**ids), STEPS)
    return [(flag.value, flag.samples) for flag in found]


def test_a_share_beyond_its_limit_is_red():
    assert shares(a_sign((0, 1))) == [(0.2, 10)]
    assert shares(a_sign((0,))) == []
    assert shares(a_sign((0, 1), limit=0.2)) == []
    assert shares(a_sign(None)) == []


def test_what_is_proved_or_broken_does_not_count():
    sign = a_sign((0, 1, 2, 3))
    assert shares(sign, certified=(0, 1)) == [(0.25, 8)]
    assert shares(sign, broken=(0, 1), certified=(9,)) == [(2 / 7, 7)]
    assert shares(sign, certified=(0, 1, 2)) == []  # one sample alone
    assert shares(sign, certified=range(10)) == []
    assert shares(sign, error=(0, 1, 2, 3)) == [(0.4, 10)]


def test_what_gradients_did_not_break_counts():
    sign = a_sign((0, 1, 2, 3))
    assert shares(sign, broken_by_pgd=(0, 1), broken_by_crown=(9,)) == [(2 / 7, 7)]
    assert shares(sign, broken_by_square=(0, 1, 2, 3)) == [(0.4, 10)]
    assert shares(sign, broken_by_square=(0, 1), broken_by_pgd=(2, 3, 4)) == [(2 / 7, 7)]


def test_one_sample_is_enough_where_none_may_be():
    assert shares(a_sign((4,), limit=0.0)) == [(0.1, 10)]
    assert shares(a_sign((4,), limit=0.0), certified=(4,)) == []


def test_a_flag_about_the_model_is_never_void():
    assert shares(a_sign(LOOKED_AT, about="model"), certified=range(20)) == [(1.0, 10)]


@pytest.mark.parametrize(
    "signs",
    [
        (a_sign((0,)), a_sign((1,))),
        (a_sign((11,), value=0.1),),
        (a_sign((1, 0)),),
        (a_sign((0,), value=0.2),),
        (a_sign((0,), value=None),),
    ],
)
def test_diagnostics_that_do_not_agree_with_themselves(signs):
    with pytest.raises(ValidationError):
        diagnostics(*signs)


@pytest.fixture
def store(tmp_path):
    store = RunStore.create(tmp_path / "run", a_manifest((PGD, CROWN)))
    store.write_shard("clean", a_frame(*(a_row(i) for i in range(10))))
    store.write_shard("pgd", a_frame(*(a_row(i) for i in range(10))))
    held = [a_row(i, "certified" if i < 4 else None, detail="unknown") for i in range(10)]
    store.write_shard("crown", a_frame(*held))
    return store


def test_the_summary_follows_the_file_and_the_shards(store):
    assert (store.write_summary().flags, store.write_summary().reliable) == (None, None)
    mine = {"identity": store.manifest.identity()}
    for held, reliable in (((0, 1, 2, 3), True), ((0, 8, 9), False)):
        write_diagnostics(store, diagnostics(*all_signs(10, zero_gradient=held), **mine))
        summary = store.write_summary()
        assert summary.reliable is reliable
        assert [flag.samples for flag in summary.flags] == [6] * (not reliable)
        assert store.verify_bytes() == []
    path = store.folder / "summary.json"
    path.write_text(path.read_text().replace('"reliable": false', '"reliable": true'))
    assert store.verify_bytes() == [f"{path}: reliable is not what the shards give"]


def test_diagnostics_of_another_run_or_of_chosen_samples_are_refused(store):
    mine = {"identity": store.manifest.identity()}
    with pytest.raises(RecordError, match="another run"):
        write_diagnostics(store, diagnostics())
    with pytest.raises(RecordError, match="first 64 samples that are right"):
        write_diagnostics(store, diagnostics(looked_at=(1, 2, 3), **mine))
    (store.folder / "diagnostics.json").write_text("{}")
    with pytest.raises(RecordError, match="remove the file"):
        read_diagnostics(store)


def without(name):
    return lambda signs: [sign for sign in signs if sign["name"] != name]


def with_own(sign, **changes):
    return lambda signs: [s | changes if s["name"] == sign else s for s in signs]


@pytest.mark.parametrize(
    ("forge", "problem"),
    [
        (with_own("zero-gradient", limit=1.0), "zero-gradient is about the sample and has limit"),
        (with_own("softmax-output", about="sample"), "not about the sample with limit 0.5"),
        (with_own("zero-gradient", name="no-gradient"), "sign zero-gradient is missing"),
        (without("not-monotone"), "sign not-monotone is missing"),
        (lambda _: [], "is missing"),
        (lambda signs: [*signs, signs[0] | {"name": "all-is-well"}], "no sign all-is-well"),
    ],
)
@pytest.mark.parametrize("schema_version", [1, 2])
def test_no_record_sets_the_limits_of_its_own_flags(store, forge, problem, schema_version):
    signs = all_signs(10, zero_gradient=(0, 8, 9))
    mine = {"identity": store.manifest.identity(), "schema_version": schema_version}
    write_diagnostics(store, diagnostics(*signs, **mine))
    store.write_summary()
    assert read_entry(store.folder).summary.reliable is False
    path = store.folder / "diagnostics.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"measured": forge(told["measured"])}))
    with pytest.raises(RecordError, match=problem):
        read_diagnostics(store)
    with pytest.raises(RecordError, match=r"diagnostics\.json"):  # no board and no report takes it
        read_entry(store.folder)


def test_where_nothing_could_be_looked_at_no_sign_is_missing(tmp_path):
    store = RunStore.create(tmp_path / "run", a_manifest())
    store.write_shard("clean", a_frame(*(a_row(i, "wrong") for i in range(10))))
    mine = {"identity": store.manifest.identity(), "looked_at": ()}
    write_diagnostics(store, diagnostics(**mine))
    assert read_diagnostics(store) == diagnostics(**mine)
