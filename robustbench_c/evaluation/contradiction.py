"""A sample that is both certified and broken: the evidence is written down, and the run stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import safetensors.torch
from torch import Tensor

from leaderboards.errors import ContradictionError
from leaderboards.files import atomic_write_bytes, make_folder
from leaderboards.manifest import StepInfo
from leaderboards.sample_ids import Ids
from leaderboards.verdicts import Verdict
from robustbench_c.evaluation import artefacts, attacking
from robustbench_c.evaluation.budgets import limits_of
from robustbench_c.evaluation.certificates import certify_places
from robustbench_c.evaluation.certifying import Certifier
from robustbench_c.evaluation.protocol_steps import Proof
from robustbench_c.evaluation.task import Task

FOLDER = "contradiction"


def contradicted(rows: pd.DataFrame, found: pd.DataFrame) -> Ids:
    """Return the samples that these rows prove although an earlier step broke them, ascending.

    Proved is what is certified although it is broken at eps, and what has an adversarial example
    within its certified radius.

    Args:
        rows: Rows of a certificate.
        found: Adversarial examples of the steps before it (`task.found_before`).
    """
    here = rows[rows["sample_id"].isin(found.index)].set_index("sample_id")
    if here.empty:
        return np.array([], dtype=np.int64)
    there = found.reindex(here.index)
    within = pd.to_numeric(here["radius"]) >= there["distance"]
    both = (here["verdict"] == Verdict.CERTIFIED) & (there["verdict"] == Verdict.BROKEN)
    return np.sort(here.index[both | within].to_numpy(dtype=np.int64))


def stop(folder: Path, ids: Ids) -> NoReturn:
    """Raise the error of these samples.

    Raises:
        ContradictionError: Always.
    """
    raise ContradictionError(tuple(ids.tolist()), str(folder / FOLDER))


def save(
    task: Task,
    step: StepInfo,
    rows: pd.DataFrame,
    found: pd.DataFrame,
    ids: Ids,
    certifier: Certifier,
) -> None:
    """Write both artefacts of each sample to `contradiction/`.

    `<id>.safetensors` holds `clean` and `adversarial`; `<id>.json` says how it was proved, how it
    was broken, and of which model, data and threat model all that is said.
    """
    folder = task.store.folder / FOLDER
    make_folder(folder)
    steps = {info.name: info for info in task.store.manifest.protocol.steps}
    for sample in ids.tolist():
        attack = steps[str(found.loc[sample, "step"])]
        place = task.places(np.array([sample]))
        example = _example(task, attack, sample, place, certifier)
        tensors = {"clean": task.data.x[place]}
        if example is not None:
            tensors["adversarial"] = example.cpu().contiguous()
        atomic_write_bytes(folder / f"{sample}.safetensors", safetensors.torch.save(tensors))
        proof = rows[rows["sample_id"] == sample].iloc[0]
        told = {
            "sample_id": sample,
            "label": int(proof["label"]),
            "certificate": _told(step, proof, ("method", "bound", "radius", "detail")),
            "broken_by": _told(
                attack,
                found.loc[sample],
                ("distance", "margin", "margin64", "prediction", "restart", "iteration"),
            ),
            "example": "adversarial" if example is not None else "it could not be made again",
            **circumstances(task),
        }
        text = json.dumps(told, indent=2, allow_nan=False) + "\n"
        atomic_write_bytes(folder / f"{sample}.json", text.encode())


def _told(step: StepInfo, row: pd.Series[Any], columns: tuple[str, ...]) -> dict[str, Any]:
    values = {name: row[name] for name in columns}
    plain = {
        k: None if pd.isna(v) else getattr(v, "item", lambda v=v: v)() for k, v in values.items()
    }
    return {"step": step.model_dump(mode="json"), **plain}


def circumstances(task: Task) -> dict[str, Any]:
    """What every artefact says of the run it is from."""
    manifest = task.store.manifest
    return {
        "threat": manifest.protocol.threat.model_dump(mode="json"),
        "seed": task.seed,
        "model": {"name": manifest.model.name, "sha256": manifest.model.sha256},
        "data": {"name": manifest.data.name, "sha256": manifest.data.sha256},
        "protocol_sha256": manifest.protocol_sha256,
        "tool_version": manifest.tool_version,
        "versions": manifest.versions,
    }


def _example(
    task: Task, attack: StepInfo, sample: int, place: Tensor, certifier: Certifier
) -> Tensor | None:
    """The example that broke a sample: the one that was kept, or the same step run again."""
    if artefacts.kept(task.store, attack.name):
        for examples in artefacts.read(task.store, attack.name):
            at = (examples.ids == sample).nonzero()[:, 0]
            if len(at):
                return examples.adversarial[at]
    if attack.kind == "attack":
        limits = limits_of(task, attack, place, timed=False)
        again = attacking.search(task, place, attack, limits)
    else:
        again = certify_places(task, certifier, Proof.of(attack), place, task.seed)
    return again.adversarial if bool(again.broken.all()) else None
