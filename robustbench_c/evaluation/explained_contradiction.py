"""An explanation that was bent beyond what is proved: the evidence is written down."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import Tensor

from leaderboards.explained import explained_values
from leaderboards.files import atomic_write_bytes, make_folder
from leaderboards.manifest import StepInfo
from leaderboards.sample_ids import Ids
from leaderboards.store import RunStore
from leaderboards.verdicts import Verdict
from robustbench_c.evaluation import explained_attacking as attacking
from robustbench_c.evaluation.contradiction import FOLDER, circumstances
from robustbench_c.evaluation.explained_config import method_of
from robustbench_c.evaluation.explained_task import ExplainedTask, explained

if TYPE_CHECKING:
    from robustbench_c.evaluation.explained_proving import Boxes

_OF_ATTACK = ("explanation_distance", "explanation_distance64", "distance", "restart", "iteration")


def attacked(store: RunStore) -> pd.DataFrame:
    """Return the rows of the attacks, with their `step`."""
    steps = [step for step in store.steps if store.kind(step) == "attack"]
    frames = [store.read_step(step).assign(step=step) for step in steps]
    return pd.concat(frames) if frames else store.read_step("clean").head(0).assign(step="")


def contradicted(rows: pd.DataFrame, attacks: pd.DataFrame) -> Ids:
    """Return the samples that an attack bent further than these rows of a certificate allow."""
    index = pd.Index(rows["sample_id"].to_numpy(), name="sample_id")
    found = explained_values({"attacks": attacks, "proof": rows}, index)
    broken = attacks["sample_id"][attacks["verdict"].isin([Verdict.BROKEN])]
    proved = rows["verdict"].isin([Verdict.CERTIFIED]).to_numpy()
    bad = (found["attack"] > found["certificate"]).to_numpy() | (proved & index.isin(broken))
    return np.sort(index[bad].to_numpy(dtype=np.int64))


def save(on: ExplainedTask, step: StepInfo, rows: pd.DataFrame, ids: Ids, boxes: Boxes) -> None:
    """Write both artefacts of each sample to `contradiction/`.

    `<id>.safetensors` holds the sample `clean`, the point `adversarial`, the explanations of both
    and the box that should hold them; where weights may change, also `weight.<name>`.
    `<id>.json` says how it was proved and how it was bent.
    """
    store = on.task.store
    folder = store.folder / FOLDER
    make_folder(folder)
    attacks = attacked(store).set_index("sample_id")
    steps = {info.name: info for info in store.manifest.protocol.steps}
    for sample in ids.tolist():
        bent = attacks.loc[sample]
        attack = steps[str(bent["step"])]
        part = on.task.places(np.array([sample])).to(on.task.x.device)
        tensors = _tensors(on, step, attack, part, boxes)
        held = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        atomic_write_bytes(folder / f"{sample}.safetensors", safetensors.torch.save(held))
        proof = rows[rows["sample_id"] == sample].iloc[0]
        told = {
            "sample_id": sample,
            "label": int(proof["label"]),
            "explained": int(on.target[part]),
            "certificate": _told(step, proof, ("method", "explanation_bound")),
            "bent_by": _told(attack, bent, _OF_ATTACK),
            **circumstances(on.task),
        }
        text = json.dumps(told, indent=2, allow_nan=False) + "\n"
        atomic_write_bytes(folder / f"{sample}.json", text.encode())


def _tensors(
    on: ExplainedTask, step: StepInfo, attack: StepInfo, part: Tensor, boxes: Boxes
) -> dict[str, Tensor]:
    from robustbench_c.evaluation.explained_proving import box_of

    again = attacking.bend_places(on, attack, part)
    box, _ = box_of(on, boxes, method_of(step), part)
    tensors = {
        "clean": on.task.x[part],
        "adversarial": again.adversarial,
        "explanation": on.clean(part),
        "box_lower": box.lower,
        "box_upper": box.upper,
    }
    if again.weights is None:
        tensors["explanation_bent"] = explained(
            on.model, again.adversarial, on.target[part], on.config, on.others(part)
        )
    else:
        tensors |= {f"weight.{name}": torch.squeeze(w, 0) for name, w in again.weights.items()}
    return tensors


def _told(step: StepInfo, row: pd.Series[Any], columns: tuple[str, ...]) -> dict[str, Any]:
    values = {name: row[name] for name in columns}
    plain = {
        k: None if pd.isna(v) else getattr(v, "item", lambda v=v: v)() for k, v in values.items()
    }
    return {"step": step.model_dump(mode="json"), **plain}
