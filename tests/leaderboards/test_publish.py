"""Runs for model cards and for MLflow."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from run_makers import write_run  # type: ignore[import-not-found]

from leaderboards.entries import read_entry
from leaderboards.errors import RecordError
from leaderboards.mlflow_log import IDENTITY, log_runs
from leaderboards.model_card import model_card


@pytest.fixture
def entry(tmp_path):
    write_run(tmp_path / "a", {0}, {1}, {2, 3}, name="first")
    return read_entry(tmp_path / "a")


def metrics(text: str) -> dict[str, float]:
    pairs = re.findall(r'- type: "(\w+)"\n      value: (\S+)\n', text)
    return {name: float(value) for name, value in pairs}


def test_a_card_has_the_rates_of_the_record(entry):
    text = model_card([entry])
    head, section = text.removeprefix("---\n").split("\n---\n")
    assert head.startswith('model-index:\n- name: "first"\n')
    assert metrics(head) == {
        "accuracy": 0.9,
        "robust_accuracy": 0.8,
        "certified_accuracy": 0.2,
    }
    assert "90.0% [55.5, 99.7]" in section
    assert entry.manifest.protocol_sha256 in section
    assert "robust-eval --model first" in section
    assert model_card([entry]) == text


def test_a_card_has_no_rank(tmp_path, entry):
    write_run(tmp_path / "b", {0}, {1}, {2}, name="first", run_id="again")
    text = model_card([entry, read_entry(tmp_path / "b")])
    assert "| Clean" in text
    assert re.search(r"\] #\d", text) is None


def test_a_robust_accuracy_that_cannot_be_trusted_is_no_metric(entry):
    summary = entry.summary.model_copy(update={"reliable": False, "flags": ()})
    text = model_card([replace(entry, summary=summary)])
    assert metrics(text.split("\n---\n")[0]) == {"accuracy": 0.9, "certified_accuracy": 0.2}
    assert "The robust accuracy is unreliable" in text


def test_the_head_is_yaml(entry):
    yaml = pytest.importorskip("yaml")
    (index,) = yaml.safe_load(model_card([entry]).split("---\n")[1])["model-index"]
    (result,) = index["results"]
    assert result["dataset"] == {"type": "mini", "name": "mini", "split": "test"}
    assert [m["value"] for m in result["metrics"]] == [0.9, 0.8, 0.2]


def test_names_of_strangers_do_nothing_there(tmp_path):
    name = '"]\n---\n<script>alert(1)</script> [x](javascript:1) | a'
    write_run(tmp_path / "a", {0}, name=name)
    text = model_card([read_entry(tmp_path / "a")])
    (line,) = (line for line in text.splitlines() if line.startswith("- name: "))
    assert json.loads(line.removeprefix("- name: ")) == name.replace("\n", " ")
    assert text.count("\n---\n") == 1
    section = text.split("\n---\n")[1]
    assert "<script" not in re.sub(r"(?m)^    .*$", "", section)  # but for the indented code


def test_runs_of_two_models_are_no_card(tmp_path, entry):
    write_run(tmp_path / "b", {0}, name="second", sha256="b" * 64)
    with pytest.raises(RecordError, match="runs of 2 models: first, second"):
        model_card([entry, read_entry(tmp_path / "b")])


def test_without_mlflow_it_says_what_to_install(entry, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlflow.exceptions", None)
    with pytest.raises(RecordError, match=r"pip install 'robustbench-c\[mlflow\]'"):
        log_runs([entry], "runs")


def test_runs_are_logged_once(entry, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # without a server or a database
    tracking = pytest.importorskip("mlflow.tracking", reason="mlflow is not installed")
    where = (tmp_path / "mlruns").as_uri()
    written, there = log_runs([entry], "runs", where)
    assert (len(written), there) == (1, 0)
    run = tracking.MlflowClient(tracking_uri=where).get_run(written[0])
    assert run.data.metrics["robust"] == 0.8
    assert run.data.metrics["certified_lower"] == pytest.approx(0.0252, abs=1e-4)
    assert run.data.params["norm"] == "linf"
    assert run.data.tags[IDENTITY] == entry.manifest.identity()
    assert run.info.status == "FINISHED"
    assert log_runs([entry], "runs", where) == ([], 1)
