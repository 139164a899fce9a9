"""Writing down what a run is, before its first sample."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from datetime import UTC, datetime

import torch

import robustbench_c
from attacks.foolbox_config import in_company
from attacks.threat import ThreatModel
from leaderboards.manifest import DataInfo, Manifest, ModelInfo, Protocol, StepInfo
from leaderboards.sample_ids import format_ids
from leaderboards.verdicts import RULES_VERSION
from robustbench_c.data import Dataset
from robustbench_c.evaluation.digest import digest
from robustbench_c.evaluation.protocol_steps import RADIUS
from robustbench_c.evaluation.subject import model_info
from robustbench_c.evaluation.threats import threat_info
from robustbench_c.zoo.loading import LoadedModel

_LIBRARIES = ("torch", "numpy", "scipy", "pandas", "pyarrow")


def _data_info(data: Dataset, classes: int) -> DataInfo:
    names = data.classes + tuple(str(label) for label in range(data.n_classes, classes))
    return DataInfo(
        name=data.name,
        split=data.split,
        sha256=data.sha256,
        ids=format_ids(data.ids.numpy()),
        shape=data.shape,
        classes=names,
        box_lower=(float(data.lower.min()), float(data.lower.max())),
        box_upper=(float(data.upper.min()), float(data.upper.max())),
        box_sha256=digest(data.lower, data.upper),
    )


def _versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **found}


def _in_a_word(steps: tuple[StepInfo, ...], suite: str | None) -> str:
    """The attack, or suite of them, and the last certificate: `pgd`, `auto-crown`."""
    last = {
        step.kind: suite if suite and step.kind == "attack" else step.name
        for step in steps
        if step.name != RADIUS
    }
    return "-".join(last[kind] for kind in ("attack", "certificate") if kind in last)


def new_manifest(
    model: LoadedModel,
    data: Dataset,
    threat: ThreatModel,
    steps: tuple[StepInfo, ...],
    *,
    classes: int,
    seed: int,
    tiles: tuple[int, ...],
    device: torch.device,
    notices: tuple[str, ...],
    protocol_name: str | None = None,
    suite: str | None = None,
) -> Manifest:
    """Return the manifest of a run; its id names the model, data, attack (or suite) and identity.

    Raises:
        pydantic.ValidationError: A name, a seed or a notice that a record cannot hold.
    """
    protocol = Protocol(
        name=protocol_name,
        threat=threat_info(threat),
        steps=steps,
        rules=RULES_VERSION,
    )
    return manifest_of(
        model_info(model, data.x[:2].to(device)),
        data,
        protocol,
        (model.name, data.name, _in_a_word(steps, suite), f"{threat.norm}-{threat.eps:g}"),
        classes=classes,
        seed=seed,
        tiles=tiles,
        device=device,
        notices=notices,
    )


def _hangs(step: StepInfo) -> bool:
    """Whether the results of a step hang on speed, or on which samples it gets together."""
    of_foolbox = step.parameters.get("attack") == "foolbox"
    alone = not (of_foolbox and in_company(str(step.parameters.get("name"))))
    return step.parameters.get("seconds") is not None or not alone


def same_machine(manifest: Manifest, device: torch.device) -> bool:
    """Whether a run's passes give the same bits here, as far as a manifest can tell."""
    here = {"platform": _platform(), "device_name": _device_name(device)}
    there = {"platform": manifest.platform, "device_name": manifest.device_name}
    return here == there and manifest.versions.get("torch") == _versions()["torch"]


def _platform() -> str:
    return f"{platform.system()} {platform.machine()}"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or "CPU"


def manifest_of(
    model: ModelInfo,
    data: Dataset,
    protocol: Protocol,
    words: tuple[str, ...],
    *,
    classes: int,
    seed: int,
    tiles: tuple[int, ...],
    device: torch.device,
    notices: tuple[str, ...],
) -> Manifest:
    """Return the manifest of a run of any subject and protocol, on this machine.

    Args:
        model: The subject.
        data: The run's samples.
        protocol: What is done to it.
        words: What the run's id begins with; the hash of its identity follows.
        classes: Number of the model's outputs.
        seed: Seed of all noise.
        tiles: Sizes of a pass.
        device: Where it runs.
        notices: What readers should know.

    Raises:
        pydantic.ValidationError: A name, a seed or a notice that a record cannot hold.
    """
    manifest = Manifest(
        run_id="unnamed",
        created=datetime.now(UTC),
        tool_version=robustbench_c.__version__,
        model=model,
        data=_data_info(data, classes),
        protocol=protocol,
        protocol_sha256=protocol.sha256,
        seed=seed,
        tiles=tiles,
        batch_size=tiles[-1],
        device=str(device),
        device_name=_device_name(device),
        dtype="float32",
        threads=torch.get_num_threads(),
        versions=_versions(),
        platform=_platform(),
        reproducible=not any(map(_hangs, protocol.steps)),
        notices=notices,
    )
    slug = "-".join(re.sub(r"[^a-z0-9.]+", "-", word.lower()).strip("-.") for word in words)
    run_id = f"{slug[:80].strip('-.')}-{manifest.identity()[:10]}"
    return Manifest(**(dict(manifest) | {"run_id": run_id.lstrip("-.")}))
