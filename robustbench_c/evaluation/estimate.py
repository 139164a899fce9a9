"""How long a run will take, and how much memory, before it is begun: measured on a few samples.

Both functions take the arguments of the run. They measure for a second or two; a model of which one
sample takes longer to bound takes as long as that.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from attacks import memory
from attacks.classifier import TiledClassifier, exact_passes, prepare
from attacks.driver import missed
from attacks.pgd import PGDConfig
from attacks.registry import AttackConfig
from attacks.square import SquareConfig
from attacks.suites import Suite
from attacks.threat import NORMS, ThreatModel
from certify.sparse.accounting import count
from robustbench_c.data import Dataset
from robustbench_c.errors import UsageError
from robustbench_c.evaluation import rooms
from robustbench_c.evaluation.budgets import AttackBudget
from robustbench_c.evaluation.certifying import (
    CertifyConfig,
    MakeCertifier,
    make_certifier,
    numbers_of,
)
from robustbench_c.evaluation.explained_config import ExplainConfig
from robustbench_c.evaluation.explained_piloting import ExplainedPilot
from robustbench_c.evaluation.explained_proving import entries_of, make_boxes
from robustbench_c.evaluation.explained_run import MakeBoxes
from robustbench_c.evaluation.inputs import check_data
from robustbench_c.evaluation.piloting import Pilot
from robustbench_c.evaluation.protocol_steps import (
    UNLIMITED,
    attack_step,
    protocol_steps,
)
from robustbench_c.evaluation.run import auto_device, dataset_of
from robustbench_c.evaluation.steps import precise_form
from robustbench_c.evaluation.subject import subject
from robustbench_c.evaluation.threats import settled
from robustbench_c.zoo.devices import parse_device
from robustbench_c.zoo.loading import LoadedModel

SAMPLES = 64
"""Samples that are measured on, spread evenly over the data."""
_PROBES = 300
"""Passes on 64 samples that the diagnosis of attacks takes, most of them without a gradient."""
_PICTURES = 1.5
"""Seconds to draw pictures of a run on images."""
_DRAWING = 96 << 20
"""Bytes that what draws them takes."""
_FILES = 0.2
"""Seconds to begin and to end a record."""


@dataclass(frozen=True)
class Estimate:
    """What a run will take on this machine, once it runs (the process starts in 2 to 10 seconds).

    Attributes:
        likely: Seconds.
        most: Seconds, if no sample is settled before the last step and every budget is used up.
        memory: Bytes of the process at peak; of a CUDA device, those that are allocated there.
    """

    likely: float
    most: float
    memory: int


def estimate(
    model: nn.Module | LoadedModel,
    data: Dataset | Tensor,
    y: Tensor | None = None,
    threat: ThreatModel | None = None,
    *,
    attack: AttackConfig | Suite | Literal["none"] | None = None,
    certify: CertifyConfig | None = None,
    budget: AttackBudget = UNLIMITED,
    batch_size: int | None = None,
    max_memory: int | None = None,
    device: torch.device | str = "auto",
    diagnose: bool = True,
    certifier: MakeCertifier = make_certifier,
) -> Estimate:
    """Estimate what `evaluate` takes; the arguments are its own.

    It is assumed that

    - of the samples, as many are right, broken and proved in each step as of 64 that are spread
      over the data: attacks are tried on them for 24 passes, proofs on as many as there is time
      for, branch and bound with 32 subproblems each;
    - an attack takes all its passes on what it does not break (at worst: as many as
      `attacks.registry.Kind.passes` says), in shards, and in tiles that few samples do not fill;
      one of foolbox, whose passes nobody knows, is tried on a tile for 2 seconds: if it takes
      longer there, so does the run;
    - attacks that close a suite are for a tenth of the samples that are open then;
    - of the samples that branch and bound leaves open, half are left with four times the work;
    - every bound costs what it does at the run's own eps, also in a search for radii;
    - nobody else works on this machine; drawing takes 1.5 seconds. A cross-check is not in it.

    Memory is that of this process while it measures (with all that it held before), and where
    fewer samples are bounded together than in the run, as much more as the others would take, up
    to where bounds are cut into chunks.

    Raises:
        AttackError, DataError, ModelError, UsageError: As of `evaluate`.
    """
    begun = _begin(model, data, y, threat, batch_size, max_memory, device)
    config = None if attack == "none" else attack or PGDConfig()
    steps = protocol_steps(config, certify, begun.threat, budget)
    with exact_passes():
        started = time.perf_counter()
        prover = None if certify is None else certifier(begun.module, begun.x[:1])
        fixed = begun.seconds + time.perf_counter() - started
        pilot = begun.pilot()
        if pilot is None:
            return Estimate(fixed, fixed, begun.memory)
        share = rooms.share_for(max_memory, numbers_of(prover), begun.x.device)
        for step in steps:
            if step.kind == "attack":
                pilot.attack(step)
            elif prover is not None:
                with memory.within(share):
                    pilot.prove(step, prover)
        threat = begun.threat
        if diagnose and config is not None and threat.eps > 0 and threat.norm in NORMS:
            probe = attack_step("square", SquareConfig(), threat)
            fixed += _PROBES * pilot.pass_cost(probe)(min(SAMPLES, pilot.samples))
    return Estimate(fixed + pilot.likely, fixed + pilot.most, max(begun.memory, pilot.memory))


def estimate_explanations(
    model: nn.Module | LoadedModel,
    data: Dataset | Tensor,
    y: Tensor | None = None,
    threat: ThreatModel | None = None,
    *,
    config: ExplainConfig | None = None,
    batch_size: int | None = None,
    max_memory: int | None = None,
    device: torch.device | str = "auto",
    boxes: MakeBoxes = make_boxes,
) -> Estimate:
    """Estimate what `evaluate_explanations` takes; the arguments are its own.

    It is assumed that every sample takes as long as a few of 64 that are spread over the data, and
    each step of an attack as long as its second; that of local Lipschitz constants half of the
    problems are left with four times the work; and what `estimate` assumes of machine and memory.

    Raises:
        AttackError, DataError, ModelError, UsageError: As of `evaluate_explanations`.
    """
    begun, config = (
        _begin(model, data, y, threat, batch_size, max_memory, device),
        config or ExplainConfig(),
    )
    if begun.threat.norm == "l0":
        raise UsageError("explanations are attacked and bounded in linf, l2 and l1, not in l0")
    config.info(begun.data.shape, begun.data.feature_names)
    with exact_passes():
        pilot = ExplainedPilot(begun.module, begun.x, begun.threat, config, len(begun.data))
        pilot.explain()
        if config.attack is not None:
            pilot.attack(config.attack)
        started = time.perf_counter()
        bounds = boxes(begun.module, begun.x[:1], config.explanation)
        fixed = begun.seconds + time.perf_counter() - started
        share = rooms.share_for(max_memory, entries_of(bounds), begun.x.device)
        for method in config.methods:
            with memory.within(share):
                pilot.bound(bounds, method)
    return Estimate(fixed + pilot.likely, fixed + pilot.most, max(begun.memory, pilot.memory))


@dataclass(eq=False)
class _Begun:
    """A run as it is before its first step.

    Attributes:
        module: The model.
        data: The samples.
        x: Some of them, (k, *shape), on the model's device.
        y: Their classes.
        threat: What the attacker may do, there too.
        classifier: The model in tiles.
        precise: The model in float64, or None.
        seconds: Time it takes to come so far, files and pictures included.
        memory: Bytes at peak until here, or while pictures are drawn.
    """

    module: nn.Module
    data: Dataset
    x: Tensor
    y: Tensor
    threat: ThreatModel
    classifier: TiledClassifier
    precise: TiledClassifier | None
    seconds: float
    memory: int

    def pilot(self) -> Pilot | None:
        """The samples that are right; None if there are none."""
        logits = self.classifier.logits(self.x)
        right = (logits.argmax(1) == self.y).nonzero()[:, 0]
        if not len(right):
            return None
        precise = self.precise
        return Pilot(
            self.classifier,
            self.x[right],
            self.y[right],
            logits[right],
            self.threat,
            None if precise is None else partial(_misses, precise),
            len(self.data) * len(right) / len(self.x),
            float(count(self.module, self.x[:2]).macs),
        )


def _misses(precise: TiledClassifier, adversarial: Tensor, y: Tensor) -> Tensor:
    return missed(precise.logits(adversarial.double()), y)


def _begin(
    model: nn.Module | LoadedModel,
    data: Dataset | Tensor,
    y: Tensor | None,
    threat: ThreatModel | None,
    batch_size: int | None,
    max_memory: int | None,
    device: torch.device | str,
) -> _Begun:
    if threat is None:
        raise UsageError("give a threat model: attacks.threat.ThreatModel.box(norm, eps)")
    dataset = dataset_of(data, y, threat)
    check_data(dataset)
    threat = settled(threat, dataset)
    loaded, target = subject(model), parse_device(auto_device(device))
    started = time.perf_counter()
    loaded.module.to(target)
    memory.reset_peak(target)
    places = torch.linspace(0, len(dataset) - 1, min(SAMPLES, len(dataset))).long()
    with exact_passes():
        x, labels = dataset.x[places].to(target), dataset.y[places].to(target)
        classifier = prepare(loaded.module, dataset.x.to(target), batch_size, max_memory)
        precise = precise_form(loaded.module, x, classifier.tiles)
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        classifier.logits(x)
        seconds += (time.perf_counter() - started) * len(dataset) / len(x)
    return _Begun(
        loaded.module,
        dataset,
        x,
        labels,
        threat.to(target),
        classifier,
        precise,
        seconds + _FILES + (_PICTURES if dataset.x.dim() == 4 else 0.0),
        memory.peak(target) + (0 if target.type == "cuda" else _DRAWING),
    )
