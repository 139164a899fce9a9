from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError
from record_makers import CROWN, PGD, a_manifest

from leaderboards.errors import RecordError
from leaderboards.manifest import Manifest, Protocol, SizeInfo, StepInfo, parse_manifest


def test_round_trip_keeps_every_field_and_type() -> None:
    step = StepInfo(
        name="pgd", kind="attack", parameters={"a": 1, "b": 1.0, "c": True, "d": None, "e": "x"}
    )
    manifest = a_manifest((step, CROWN), notices=("slow",))
    again = parse_manifest(manifest.to_bytes(), "m")
    assert again == manifest
    kinds = [type(v) for v in again.protocol.steps[0].parameters.values()]
    assert kinds == [int, float, bool, type(None), str]
    assert again.identity() == manifest.identity()


def test_protocol_hash_is_pinned() -> None:
    """A change of this hash makes all records written so far incomparable."""
    assert (
        a_manifest().protocol.sha256
        == "18b50a112737c6dc5a43be94b7993b126f663e67d7958b850842a9db769db623"
    )


def test_protocol_hash_ignores_the_order_of_parameters_and_nothing_else() -> None:
    def protocol(**parameters: Any) -> Protocol:
        step = StepInfo(name="pgd", kind="attack", parameters=parameters)
        return Protocol(threat=a_manifest().protocol.threat, steps=(step,), rules=1)

    assert protocol(a=1, b=2).sha256 == protocol(b=2, a=1).sha256
    others = [protocol(a=1, b=3), protocol(a=1, b=2.0), protocol(a=1, b="2"), protocol(a=1)]
    assert len({p.sha256 for p in others} | {protocol(a=1, b=2).sha256}) == 5
    base = a_manifest((PGD, CROWN)).protocol
    assert base.sha256 != a_manifest((CROWN, PGD)).protocol.sha256


def test_identity_holds_what_changes_results_and_not_the_rest() -> None:
    base = a_manifest()
    for same in ({"batch_size": 1}, {"run_id": "other"}, {"notices": ("x",)}):
        assert a_manifest(**same).identity() == base.identity()
    weights = base.model.model_copy(update={"sha256": "c" * 64})
    scaled = base.model.model_copy(update={"normalisation": "mean 0.5, std 0.5"})
    for other in (
        {"seed": 1},
        {"threads": 8},
        {"dtype": "float64"},
        {"device": "cuda:0"},
        {"versions": {"torch": "2.4.0"}},
        {"model": weights},
        {"model": scaled},
        {"ids": "0-8"},
        {"steps": (PGD, CROWN)},
    ):
        assert a_manifest(**other).identity() != base.identity(), other
    first, second = a_manifest(device="cuda:0"), a_manifest(device="cuda:1", threads=8)
    assert first.identity() == second.identity()


def _changed(path: str, value: Any) -> bytes:
    tree = json.loads(a_manifest().to_bytes())
    *parents, last = path.split(".")
    node = tree
    for parent in parents:
        node = node[int(parent)] if parent.isdigit() else node[parent]
    node[last] = value
    return json.dumps(tree).encode()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema_version", 2, "format"),
        ("seed", "0", "seed"),
        ("seed", -1, "seed"),
        ("tiles", (0,), "tiles"),
        ("unknown", 1, "unknown"),
        ("run_id", "../../etc", "run_id"),
        ("run_id", "a/b", "run_id"),
        ("run_id", "a\n", "run_id"),
        ("model.sha256", "A" * 64, "model.sha256"),
        ("data.ids", "0-999999999999", "at most"),
        ("data.ids", "0,1", "0-1"),
        ("data.classes", ["one"], "data.classes"),
        ("protocol.threat.eps", -0.1, "eps"),
        ("protocol.threat.eps", float("nan"), "eps"),
        ("protocol.threat.norm", "l3", "norm"),
        ("protocol.threat.eps", 0.2, "not the hash"),
        ("protocol.steps.0.name", "../pgd", "name"),
        ("protocol.steps.0.name", "clean", "first step"),
        ("protocol.steps.0.parameters", {"steps": [40]}, "parameters"),
        ("protocol_sha256", "0" * 64, "not the hash"),
        ("versions", {}, "torch"),
        ("created", "2026-01-02T03:04:05", "created"),
    ],
)
def test_a_bad_manifest_is_one_line(path: str, value: Any, message: str) -> None:
    with pytest.raises(RecordError, match=message) as caught:
        parse_manifest(_changed(path, value), "some/manifest.json")
    assert str(caught.value).startswith("some/manifest.json: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= 600


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\x00", b"[" * 100_000, b"null"])
def test_what_is_no_manifest_is_one_line(data: bytes) -> None:
    with pytest.raises(RecordError, match=r"^m: "):
        parse_manifest(data, "m")


def test_hostile_text_in_a_message_is_inert() -> None:
    tree = json.loads(a_manifest().to_bytes())
    tree["\x1b[31mred\nnew line" + "x" * 5000] = 1
    with pytest.raises(RecordError) as caught:
        parse_manifest(json.dumps(tree).encode(), "m")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 600


def test_two_steps_of_one_name_and_changes_are_refused() -> None:
    with pytest.raises(ValidationError, match="two steps"):
        a_manifest((PGD, PGD))
    with pytest.raises(ValidationError, match="frozen"):
        a_manifest().seed = 3  # type: ignore[misc]


def test_every_field_is_documented() -> None:
    todo: list[Any] = [Manifest]
    while todo:
        model = todo.pop()
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            kind = field.annotation
            kinds = [kind, *getattr(kind, "__args__", ())]
            todo += [k for k in kinds if hasattr(k, "model_fields")]


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("model.size.nonzero_weights", 8, "more weights are not 0 than there are"),
        ("model.size.nonzero_macs", 8, "more MACs"),
        ("model.size.nonzero_parameters", 11, "more parameters are not 0 than there are"),
        ("data.shape", [2**16, 2**16], "more than 2147483648 features"),
        ("data.shape", [0, 2**60], "more than 2147483648 features"),
        ("created", "2101-01-01T00:00:00Z", "after the year 2100"),
    ],
)
def test_claims_that_are_impossible_are_refused(place: str, value: Any, problem: str) -> None:
    told = json.loads(a_manifest().to_bytes())
    told["model"]["size"] = dict.fromkeys(SizeInfo.model_fields, 7)
    parse_manifest(json.dumps(told).encode(), "m")
    *parents, last = place.split(".")
    inner = told
    for name in parents:
        inner = inner[name]
    inner[last] = value
    with pytest.raises(RecordError, match=problem):
        parse_manifest(json.dumps(told).encode(), "m")


def test_a_model_without_a_size_is_written_as_before_there_was_one() -> None:
    manifest = a_manifest()
    assert b'"size"' not in manifest.to_bytes()
    names = ("weights", "nonzero_weights", "nonzero_parameters", "macs", "nonzero_macs")
    size = SizeInfo(**dict.fromkeys((*names, "dense_bytes", "packed_bytes"), 7))
    sized = a_manifest(model=manifest.model.model_copy(update={"size": size}))
    assert parse_manifest(sized.to_bytes(), "m") == sized
    assert sized.identity() == manifest.identity()
