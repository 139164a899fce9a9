"""Records of corruptions and simple transformations: what they say, again and for any batch."""

from __future__ import annotations

import json
import threading
from collections import Counter

import pytest
import torch
from torch import nn

from attacks.classifier import TiledClassifier
from attacks.corruptions import corruption_accuracy
from attacks.errors import AttackError
from attacks.threat import ThreatModel
from attacks.transform_search import TransformConfig, transform_attack
from attacks.transformations import FAMILY
from leaderboards.changed import classes_under, least_shares
from leaderboards.rates import Rate
from leaderboards.store import RunStore
from robustbench_c.cli.changed_tables import print_transformations
from robustbench_c.data import from_tensors
from robustbench_c.evaluation import corrupting, transforming
from robustbench_c.evaluation.protocol_steps import attack_of, attack_step
from robustbench_c.evaluation.verify import verify

KINDS = ("gaussian-noise", "fog", "contrast", "pixelate")


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(2)
    convolution = nn.Conv2d(1, 4, 3, stride=2)
    return nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)).eval()


@pytest.fixture
def images(net):
    x = torch.rand(40, 1, 10, 10, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        net[3].bias -= net(x).mean(0)
        y = net(x).argmax(1)
    y[:6] = (y[:6] + 1) % 3
    return from_tensors(x, y, lower=torch.tensor(0.0), upper=torch.tensor(1.0))


@pytest.fixture
def corrupted(net, images, tmp_path):
    def run(data=images, out="runs", kinds=KINDS, **options):
        options = {"severities": (1, 3, 5), **options}
        return corrupting.corruptions(net, data, kinds, out=tmp_path / out, **options)

    return run


@pytest.fixture
def transformed(net, images, tmp_path):
    def run(data=images, out="runs", **options):
        config = TransformConfig(levels=3, draws=5, families=("rotate", "blur", "noise"))
        return transforming.transformations(net, data, config, out=tmp_path / out, **options)

    return run


def test_accuracy_is_that_of_all_samples_at_each_severity(corrupted, net, images):
    run = corrupted(seed=4)
    found, classifier = run.summary.corruption, TiledClassifier(net)
    expected = corruption_accuracy(
        classifier, images.x, images.y, images.ids, 4, images.lower, images.upper, KINDS
    )
    table = {(cell.kind, cell.severity): cell.accuracy for cell in found.cells}
    assert list(table) == [(kind, severity) for kind in KINDS for severity in (1, 3, 5)]
    for (kind, severity), rate in table.items():
        right = expected.correct[KINDS.index(kind), severity - 1]
        assert (rate.k, rate.n) == (int(right.sum()), 40)
    kept = expected.correct[:, [0, 2, 4]]
    assert found.mean_accuracy == pytest.approx(float(kept.double().mean()))
    means = kept.double().mean((1, 2))
    assert found.worst_kind == KINDS[int(means.argmin())]
    assert found.worst_accuracy == pytest.approx(float(means.min()))
    assert run.summary.clean_accuracy.k == 34
    under_all = kept.all(1).all(0) & expected.clean
    assert run.summary.robust_accuracy.k == int(under_all.sum())
    assert 0 < int(under_all.sum()) < 34
    wrong_then_right = kept[:, :, :6].any()
    assert wrong_then_right, "samples that are wrong as they are count, too"


def test_rows_are_about_the_first_severity_that_breaks(corrupted):
    store = corrupted().store
    assert store.verify_bytes() == []
    clean = store.read_step("clean").set_index("sample_id")
    for kind in KINDS:
        rows = store.read_step(kind).set_index("sample_id")
        missed = classes_under(rows, 3) != rows["label"].to_numpy()[:, None]
        right = clean["verdict"].isna()
        assert (rows["verdict"].isin(["broken"]) == (right & missed.any(1))).all()
        hit = missed.any(1)
        assert (rows["iteration"][hit] == missed.argmax(1)[hit]).all()
        assert (rows["distance"] > 0).all()


@pytest.mark.parametrize("made", ["corrupted", "transformed"])
def test_no_result_hangs_on_batches_order_shards_or_resumes(
    made, images, hashes, request, monkeypatch, tmp_path
):
    make = request.getfixturevalue(made)
    whole = make()
    assert whole.summary.complete
    assert not whole.resumed
    order = torch.randperm(40, generator=torch.Generator().manual_seed(5)).tolist()
    monkeypatch.setattr(corrupting, "_SHARD_SAMPLES", 16)
    monkeypatch.setattr(transforming, "_SHARD_SAMPLES", 16)
    small = make(images.subset(order), "small", batch_size=32)
    assert hashes(small) == hashes(whole)
    for shard in sorted((small.folder / "shards").rglob("*.parquet"))[1::3]:
        shard.unlink()
    again = make(images, "small")
    assert again.resumed
    assert hashes(again) == hashes(whole)
    assert hashes(make(out="other", seed=1)) != hashes(whole)
    assert make(overwrite=True).resumed is False


@pytest.mark.parametrize("made", ["corrupted", "transformed"])
def test_two_at_once_make_the_record_of_one(made, hashes, request, monkeypatch):
    make, write = request.getfixturevalue(made), RunStore.write_shard
    whole = make()
    monkeypatch.setattr(corrupting, "_SHARD_SAMPLES", 16)
    monkeypatch.setattr(transforming, "_SHARD_SAMPLES", 16)
    runs, first, written = [], {}, Counter()

    def counting(store, step, frame, *more):
        if step != "clean":
            first.setdefault(threading.current_thread().name, step)
            written[(step, *sorted(frame["sample_id"]))] += 1
        return write(store, step, frame, *more)

    def work(start: float) -> None:
        runs.append(make(out="shared", start=start))

    monkeypatch.setattr(RunStore, "write_shard", counting)
    workers = [threading.Thread(target=work, args=(start,), name=str(start)) for start in (0, 0.5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [hashes(run) for run in runs] == [hashes(whole)] * 2
    assert set(written.values()) == {1}, "no shard twice"
    steps = whole.store.steps[1:]
    assert first["0.5"] != first["0"] == steps[0], "they begin with different steps"
    assert not (runs[0].folder / "leases").exists()


def test_a_check_corrupts_again(corrupted, net, images, monkeypatch):
    run = corrupted()
    result = verify(run.store, net, images)
    assert result.problems == ()
    assert result.kept
    assert result.replayed == result.broken > 0
    right = corrupting.corrupt
    monkeypatch.setattr(
        corrupting, "corrupt", lambda x, k, s, ids, seed, *box: right(x, k, s, ids, seed + 1, *box)
    )
    result = verify(run.store, net, images)
    assert any("another margin or class" in problem for problem in result.problems)
    assert result.replayed < result.broken


def test_the_least_strength_of_each_family_is_written_down(transformed, net, images):
    run = transformed(save_adversarial=True)
    store, found = run.store, {f.name: f for f in run.summary.transformation.families}
    assert list(found) == ["rotate", "blur", "noise", "mixture"]
    frames = {step: store.read_step(step) for step in store.steps}
    right = frames["clean"]["verdict"].isna()
    for name in ("rotate", "blur", "noise"):
        rows = frames[name].set_index("sample_id")
        assert list(rows.index) == list(frames["clean"]["sample_id"][right])
        expected = transform_attack(
            TiledClassifier(net),
            images.x,
            images.y,
            images.ids,
            images.lower,
            images.upper,
            TransformConfig(3, 0, (name,)),
            0,
        )
        strength = expected.strength[rows.index.tolist()]
        hit = rows["verdict"].isin(["broken"]).to_numpy()
        assert (hit == expected.broken[rows.index.tolist()].numpy()).all()
        assert rows["strength"].to_numpy()[hit].tolist() == strength[hit].tolist()
        assert rows["strength"].isna().to_numpy()[~hit].all()
        assert (found[name].broken.k, found[name].broken.n) == (hit.sum(), right.sum())
        assert found[name].unit == FAMILY[name].unit
        if hit.any():
            assert found[name].median_strength == rows["strength"].median()
    assert sum(f.broken.k for f in found.values() if f.broken) > len(right) / 2
    share = least_shares(frames)
    least = share.min(axis=1)
    assert [f.weakest for f in found.values()] == [(share[n] == least).sum() for n in found]
    open_before = share[["rotate", "blur", "noise"]].isna().all(axis=1)
    assert set(frames["mixture"]["sample_id"]) == set(share.index[open_before & right.to_numpy()])
    result = verify(store, net, images)
    assert result.problems == ()
    assert result.replayed == result.broken == sum(f.broken.k for f in found.values() if f.broken)


def test_a_search_says_that_it_asks_for_predictions(transformed):
    assert {step.knowledge for step in transformed().summary.steps[1:]} == {"decision"}
    step = attack_step("transformations", TransformConfig(), ThreatModel.box("linf", 0.1))
    assert step.parameters["knowledge"] == "decision"
    older = step.model_copy(update={"parameters": step.parameters | {"knowledge": "none"}})
    assert attack_of(older) == TransformConfig()


@pytest.mark.parametrize("families", [("rotate", "blur", "noise"), ("blur",)])
def test_a_mixture_has_a_rate_of_what_it_was_tried_on(net, images, tmp_path, capsys, families):
    config = TransformConfig(levels=3, draws=5, families=families)
    run = transforming.transformations(net, images, config, out=tmp_path)
    count = len(run.store.read_step("mixture"))
    assert (count > 0) == (len(families) == 1)
    mixture = run.summary.transformation.families[-1]
    assert (mixture.tried, mixture.broken and mixture.broken.n) == (count, count or None)
    print_transformations(run.summary, run.summary.transformation)
    assert ("none tried" in capsys.readouterr().out) == (count == 0)


def test_an_older_summary_is_what_the_shards_gave(transformed, net, images):
    run = transformed()
    path = run.folder / "summary.json"
    written = json.loads(path.read_text())
    right = written["clean_accuracy"]["k"]
    for family in written["transformation"]["families"]:
        del family["tried"]
        family["broken"] = Rate.of((family["broken"] or {"k": 0})["k"], right).model_dump()
    path.write_text(json.dumps(written))
    assert verify(run.store, net, images).problems == ()
    written["transformation"]["families"][-1]["broken"] = Rate.of(1, right + 1).model_dump()
    path.write_text(json.dumps(written))
    assert "transformation is not what" in str(verify(run.store, net, images).problems)


class Nan(nn.Module):
    """NaN where the picture is bright in the mean."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):
        bright = x.mean((1, 2, 3), keepdim=True)[:, :, 0, 0] > 0.7
        return self.net(x) * torch.where(bright, torch.nan, 1.0)


def test_no_class_counts_as_wrong_and_says_so(net, images, tmp_path):
    model = Nan(net).eval()
    run = corrupting.corruptions(model, images, ("brightness",), out=tmp_path)
    rows, cells = run.store.read_step("brightness"), run.summary.corruption.cells
    assert cells[4].accuracy.k == 0, "at the last severity all are bright"
    assert rows["verdict"].isin(["error"]).any()
    assert run.summary.robust_accuracy.k == 0
    assert run.store.verify_bytes() == []


def test_what_is_no_image_has_no_corruptions_and_fewer_families(linear, tmp_path):
    data = from_tensors(linear.x, linear.y, lower=torch.tensor(0.0), upper=torch.tensor(1.0))
    with pytest.raises(AttackError, match="images"):
        corrupting.corruptions(linear.model, data, out=tmp_path)
    config = TransformConfig(levels=2, draws=2)
    run = transforming.transformations(linear.model, data, config, out=tmp_path)
    assert run.store.steps == ("clean", "contrast", "brightness", "noise", "mixture")
