"""Pages of runs about explanations, corruptions and distances."""

from __future__ import annotations

import numpy as np
import safetensors.numpy
from record_makers import CROWN, a_frame, a_manifest, a_row
from test_explained_records import good

from leaderboards.manifest import CorruptionInfo, StepInfo, TransformationInfo
from leaderboards.site import build
from leaderboards.store import RunStore

NEAREST = StepInfo(
    name="nearest", kind="attack", parameters={"minimal": True, "steps": 40, "restarts": 1}
)


def page_of(run, tmp_path) -> str:
    result = build([run], tmp_path / "site", title="t")
    assert result.refused == ()
    (page,) = (tmp_path / "site" / "runs").iterdir()
    return (page / "index.html").read_text()


def test_explanations_are_told_and_their_heat_maps_shown(tmp_path) -> None:
    store = good(tmp_path / "run")
    store.write_summary()
    kept = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 1, 2, 2)
    tensors = {"ids": np.array([0, 3]), "clean": kept, "lower": kept - 1, "upper": kept + 1}
    safetensors.numpy.save_file(tensors, tmp_path / "run" / "explanations.safetensors")
    text = page_of(tmp_path / "run", tmp_path)
    for said in (
        "It counts as bent when its cosine distance from the clean one exceeds 0.1.",
        "Certified stable",
        "Proved: the truth is at most that",
        "Largest change of an entry",
        "--explain gradient --explain-of logit --min-cosine 0.9",
        'src="explanation-3-box-width.png"',
    ):
        assert said in text, said
    assert len(list((tmp_path / "site").rglob("explanation-*.png"))) == 4
    index = (tmp_path / "site" / "index.html").read_text()
    assert "Explanation certified" in index
    assert "Cosine similarity, median" in index
    assert "orange is bent" in index
    assert "(explanations: bent)" in index
    (samples,) = (tmp_path / "site").rglob("samples.js")
    assert '"title":"Bent by"' in samples.read_text()
    assert "xample" not in samples.read_text()


def test_kept_explanations_that_are_damaged_are_said_to_be(tmp_path) -> None:
    store = good(tmp_path / "run")
    store.write_summary()
    (tmp_path / "run" / "explanations.safetensors").write_bytes(b"nothing")
    text = page_of(tmp_path / "run", tmp_path)
    assert "The stored explanations are not shown: explanations.safetensors is damaged" in text
    assert str(tmp_path) not in text


def test_corruptions_are_a_table_of_severities(tmp_path) -> None:
    fog = StepInfo(name="fog", kind="attack", parameters={"samples": "all"})
    protocol = a_manifest((fog,), "0-1").protocol
    protocol = protocol.model_copy(update={"corruption": CorruptionInfo(severities=(1, 3))})
    manifest = a_manifest((fog,), "0-1", protocol=protocol, protocol_sha256=protocol.sha256)
    store = RunStore.create(tmp_path / "run", manifest)
    store.write_shard("clean", a_frame(*(a_row(i, predictions=None) for i in range(2))))
    broken = a_row(1, "broken", predictions=[1, 2], iteration=1, distance=0.05)
    store.write_shard("fog", a_frame(a_row(0, predictions=[1, 1]), broken))
    store.write_summary()
    text = page_of(tmp_path / "run", tmp_path)
    assert "1 of them are wrong under some corruption. 1 (50.00%) are right under all." in text
    assert "Mean accuracy 75.00%. Worst: fog, 75.00%." in text
    assert 'Accuracy in % at severity</th><th scope="col" class="n">1</th>' in text
    index = (tmp_path / "site" / "index.html").read_text()
    assert 'data-norm="" data-eps=""' in index
    assert "bent" not in index


def test_transformations_are_told_by_family(tmp_path) -> None:
    turn = StepInfo(
        name="rotate", kind="attack", parameters={"samples": "right", "unit": "<i>degrees"}
    )
    protocol = a_manifest((turn,), "0-1").protocol
    info = TransformationInfo(levels=3, draws=0)
    protocol = protocol.model_copy(update={"transformation": info})
    manifest = a_manifest((turn,), "0-1", protocol=protocol, protocol_sha256=protocol.sha256)
    store = RunStore.create(tmp_path / "run", manifest)
    nothing = {"strength": None, "strength_share": None}
    store.write_shard("clean", a_frame(*(a_row(i, **nothing) for i in range(2))))
    broken = a_row(1, "broken", strength=10.0, strength_share=0.5, distance=0.05)
    store.write_shard("rotate", a_frame(a_row(0, **nothing), broken))
    store.write_summary()
    text = page_of(tmp_path / "run", tmp_path)
    assert "A simple transformation breaks 1 of them" in text
    assert "&lt;i&gt;degrees" in text


def test_runs_that_look_for_the_nearest_have_a_curve_on_both_pages(tmp_path) -> None:
    store = RunStore.create(tmp_path / "run", a_manifest((NEAREST, CROWN), "0-2"))
    store.write_shard("clean", a_frame(*(a_row(i) for i in range(3))))
    near = [a_row(0, "broken", distance=0.05), a_row(1), a_row(2)]
    store.write_shard("nearest", a_frame(*near))
    nothing = {"prediction": None, "margin": None}
    proofs = [a_row(i, "certified", **nothing) for i in (1, 2)]
    store.write_shard("crown", a_frame(*proofs))
    store.write_summary()
    text = page_of(tmp_path / "run", tmp_path)
    (samples,) = (tmp_path / "site").rglob("samples.js")
    assert '"title":"Nearest example"' in samples.read_text()
    assert "<title>Accuracy against eps</title>" in text
    assert "<title>Accuracy against eps</title>" in (tmp_path / "site" / "index.html").read_text()
