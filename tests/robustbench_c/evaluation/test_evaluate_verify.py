"""Whoever changes a stored run is found out."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from leaderboards.errors import RecordError
from leaderboards.store import RunStore
from robustbench_c.data import from_tensors
from robustbench_c.errors import DataError, ModelError
from robustbench_c.evaluation.verify import verify


@pytest.fixture
def data(linear):
    return from_tensors(linear.x, linear.y)


@pytest.fixture
def run(linear, tmp_path, small_shards):
    return linear.evaluate(tmp_path, save_adversarial=True)


@pytest.fixture
def problems(linear, data, run):
    """What a check of the run on disk says now."""

    def check() -> tuple[str, ...]:
        try:
            return verify(RunStore.open(run.folder), linear.model, data).problems
        except RecordError as error:
            return (str(error),)

    return check


def example_file(run):
    return next(iter(sorted((run.folder / "adversarial" / "pgd").iterdir())))


def edit_examples(run, change):
    path = example_file(run)
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)


def test_good_run_passes(linear, data, run):
    result = verify(run.store, linear.model, data)
    assert result.problems == ()
    assert result.kept
    assert result.replayed == result.broken == run.summary.counts.broken > 5
    bigger = from_tensors(data.x, data.y).subset(torch.arange(59, -1, -1))
    assert verify(run.store, linear.model, bigger).problems == ()


def test_run_without_examples_says_so(linear, data, tmp_path):
    run = linear.evaluate(tmp_path)
    result = verify(run.store, linear.model, data)
    assert (result.problems, result.kept, result.replayed) == ((), False, 0)
    assert result.broken == run.summary.counts.broken


def test_another_model_is_refused(linear, data, run):
    other = torch.nn.Linear(12, 3).eval()
    with pytest.raises(ModelError, match="give the model that was evaluated"):
        verify(run.store, other, data)


@pytest.mark.parametrize("change", ["x", "y"])
def test_other_data_are_refused(linear, data, run, change):
    x, y = data.x.clone(), data.y.clone()
    if change == "x":
        x[59, 11] += 0.001
    else:
        y[59] = (y[59] + 1) % 3
    with pytest.raises(DataError, match="give the data that were used"):
        verify(run.store, linear.model, from_tensors(x, y))
    with pytest.raises(DataError, match="does not hold sample 7 of the run"):
        verify(run.store, linear.model, data.head(7))


def test_changed_pixel_is_found(run, problems):
    def nudge(tensors):
        tensors["adversarial"][0, 0] += 0.2

    edit_examples(run, nudge)
    assert any("outside of the threat model" in line for line in problems())


def test_changed_pixel_within_eps_is_found(run, problems):
    """Legal and still broken, but not what was recorded."""

    def shrink(tensors):
        gap = tensors["adversarial"] - tensors["clean"]
        tensors["adversarial"] = tensors["clean"] + 0.999 * gap

    edit_examples(run, shrink)
    assert any("not at its distance" in line for line in problems())


def test_rightly_classified_example_is_found(run, problems):
    def undo(tensors):
        tensors["adversarial"] = tensors["clean"].clone()

    edit_examples(run, undo)
    assert any("is classified rightly" in line for line in problems())


def test_nan_is_found(run, problems):
    def poison(tensors):
        tensors["adversarial"][0, 0] = torch.nan

    edit_examples(run, poison)
    assert any("outside of the threat model" in line for line in problems())


def test_changed_clean_sample_is_found(run, problems):
    def nudge(tensors):
        tensors["clean"][0, 0] += 0.01

    edit_examples(run, nudge)
    assert any("clean samples are not those of the data" in line for line in problems())


def test_swapped_examples_are_found(run, problems):
    def swap(tensors):
        tensors["adversarial"] = tensors["adversarial"].flip(0).contiguous()

    edit_examples(run, swap)
    assert any("outside of the threat model" in line for line in problems())


@pytest.mark.parametrize("sample", [0, 10**6])
def test_example_of_another_sample_is_found(run, problems, sample):
    def rename(tensors):
        tensors["ids"][0] = sample  # sample 0 is wrong without an attack

    edit_examples(run, rename)
    assert any(f"sample {sample}: an example, but it is not broken" in p for p in problems())


def test_removed_examples_are_found(run, problems):
    example_file(run).unlink()
    assert any("without an example" in line for line in problems())


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b"not tensors at all", None])
def test_damaged_examples_are_found(run, problems, content):
    path = example_file(run)
    path.write_bytes(path.read_bytes()[:-5] if content is None else content)
    (line,) = problems()
    assert "damaged" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("clean"),
        lambda t: t.update(more=torch.zeros(1)),
        lambda t: t.update(ids=t["ids"].float()),
        lambda t: t.update(adversarial=t["adversarial"].double()),
        lambda t: t.update(adversarial=t["adversarial"][:, :5].contiguous()),
        lambda t: t.update(ids=torch.cat([t["ids"], t["ids"]])),
        lambda t: t.update({k: t[k][:, :5].contiguous() for k in ("clean", "adversarial")}),
    ],
)
def test_examples_of_another_form_are_found(run, problems, change):
    edit_examples(run, change)
    assert problems()


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["robust_accuracy"].update(k=55, value=55 / 60),
        lambda s: s["counts"].update(broken=0),
        lambda s: s["steps"][1].update(content_sha256="0" * 64),
        lambda s: s["cost"].update(forwards=1),
    ],
)
def test_edited_summary_is_found(run, problems, change):
    path = run.folder / "summary.json"
    summary = json.loads(path.read_text())
    change(summary)
    path.write_text(json.dumps(summary))
    assert any("not what the shards give" in line for line in problems())


def test_missing_summary_is_found(run, problems):
    (run.folder / "summary.json").unlink()
    assert any("is missing" in line for line in problems())


def edit_rows(run, step, change):
    """Edit a shard as somebody would who knows its format, and mend the summary after it."""
    path = run.store.shard_paths(step)[0]
    table = pq.read_table(path)
    frame = table.to_pandas()
    change(frame)
    edited = type(table).from_pandas(frame, schema=table.schema, preserve_index=False)
    pq.write_table(edited, path)
    RunStore.open(run.folder).write_summary()


def test_broken_sample_called_robust_is_found(run, problems):
    def whitewash(frame):
        row = frame.index[frame["verdict"] == "broken"][0]
        frame.loc[row, ["verdict", "prediction", "margin"]] = [None, frame["label"][row], 0.5]

    edit_rows(run, "pgd", whitewash)
    assert any("it is not broken" in line for line in problems())


def test_robust_sample_called_broken_is_found(run, problems):
    def slander(frame):
        row = frame.index[frame["verdict"].isna()][0]
        frame["prediction"] = frame["prediction"].astype("Int64")
        other = (frame["label"][row] + 1) % 3
        columns = ["verdict", "prediction", "margin", "margin64", "distance"]
        frame.loc[row, columns] = ["broken", other, -0.5, -0.5, 0.01]

    edit_rows(run, "pgd", slander)
    assert any("without an example" in line for line in problems())


def test_wrong_sample_called_right_is_found(run, problems):
    """With a margin to go with it: only the model itself can tell."""

    def whitewash(frame):
        row = frame.index[frame["verdict"] == "wrong"][0]
        frame.loc[row, ["verdict", "prediction", "margin"]] = [None, frame["label"][row], 1.0]

    edit_rows(run, "clean", whitewash)
    assert any("clean sample 0 has the margin 1 on record" in line for line in problems())


def test_changed_label_is_found(run, problems):
    def relabel(frame):
        frame.loc[0, ["label", "verdict", "margin"]] = [frame["prediction"][0], None, 1.0]

    edit_rows(run, "clean", relabel)
    assert any("clean sample 0 has the label" in line for line in problems())


def test_cut_shard_is_found(run, problems):
    path = run.store.shard_paths("pgd")[0]
    path.write_bytes(path.read_bytes()[:100])
    assert len(problems()) == 1


def test_removed_shard_is_found(run, problems):
    run.store.shard_paths("pgd")[0].unlink()
    assert any("not what the shards give" in line for line in problems())


def test_run_copied_elsewhere_passes(linear, data, run, tmp_path):
    moved = shutil.copytree(run.folder, tmp_path / "of" / "others")
    assert verify(RunStore.open(moved), linear.model, data).problems == ()


def test_shards_are_pandas_readable(run):
    """By whoever has no copy of this project."""
    frame = pd.read_parquet(run.folder / "shards" / "pgd")
    assert len(frame) == 55
