"""The steps of a protocol: which attacks and certificates run, in which order, with what."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import get_args

from pydantic import ValidationError

from attacks.errors import AttackError
from attacks.foolbox_config import FoolboxConfig, in_company
from attacks.nearest import NearestConfig
from attacks.pgd import PGDConfig
from attacks.registry import KINDS, AttackConfig, from_plain, kind_of, knowledge_of, to_plain
from attacks.suites import SUITES, Suite
from attacks.threat import ThreatModel
from certify.errors import CertifyError
from leaderboards.errors import RecordError
from leaderboards.manifest import Parameter, SampleScope, StepInfo, explain
from leaderboards.near import NEAR
from robustbench_c.errors import UsageError
from robustbench_c.evaluation.budgets import QUERIES, SECONDS, AttackBudget
from robustbench_c.evaluation.certifying import CASCADE, METHODS, Budget, CertifyConfig, Method

PGD = "pgd"
"""Name of the attack as it was configured."""
QUICK = "pgd-quick"
"""Name of the short attack that opens a cascade."""
RADIUS = "radius"
"""Name of the step that looks for certified radii."""

UNLIMITED = AttackBudget()
CERTIFICATE_VERSION = 1

COMPILED = "compile"
"""Parameter of attacks whose gradients are compiled; absent where they are not."""

TILES = {"ibp": 128, "crown-ibp": 64, "crown": 64, "alpha-crown": 32, "complete": 16}
"""Samples that are bounded together, by method: see `proving.plan`."""
RADIUS_METHOD: Method = "crown"
"""By which a cascade measures radii."""
TOLERANCE = 0.01
"""The next larger radius that was tried exceeds the one that was proved by this share."""


def attack_step(
    name: str,
    config: AttackConfig,
    threat: ThreatModel,
    budget: AttackBudget = UNLIMITED,
    minimal: bool = False,
    near: float | None = None,
    compile: bool = False,
) -> StepInfo:
    """An attack as a step of a protocol: every setting, with PGD's step size as a number.

    Args:
        name: Of the step.
        config: Settings of the attack.
        threat: What the attacker may do.
        budget: What all attacks of the run may spend.
        minimal: Whether it looks for the nearest adversarial example of every sample.
        near: Attack the samples alone that are as near as that (`leaderboards.near`).
        compile: Compile the gradients of an attack that has some of its own.

    Raises:
        UsageError: A record cannot hold one of the settings.
    """
    kind, settings = kind_of(config), to_plain(config)
    if isinstance(config, PGDConfig):  # its records are older than the name in them
        settings["step_size"] = config.resolved_step(threat.eps)
    else:
        settings = {"attack": kind.name, "knowledge": knowledge_of(config), **settings}
    if minimal or kind.minimal == "always":
        settings["minimal"] = True
    if near is not None:
        settings[NEAR] = near
    if compile and _has_gradients(config):
        settings[COMPILED] = True
    settings |= budget.parameters
    try:
        version = kind.versions.get(threat.norm, 1)
        return StepInfo(name=name, kind="attack", version=version, parameters=settings)
    except ValidationError as error:
        raise UsageError(f"a record cannot hold the attack {name}: {explain(error)}") from error


def attack_of(step: StepInfo) -> AttackConfig:
    """Return the settings of `attack_step`.

    Raises:
        RecordError: They are not those of an attack that is known here.
    """
    settings = dict(step.parameters)
    name = settings.pop("attack", PGD)
    for other in ("knowledge", NEAR, COMPILED, QUERIES, SECONDS):
        settings.pop(other, None)
    if name not in KINDS:
        raise RecordError(f"step {step.name} is an attack that is not known here: {name!r}")
    if step.minimal and KINDS[str(name)].minimal != "never":
        del settings["minimal"]
    if name == PGD:
        settings["step_size"] = settings.get("step_size") or None  # of eps 0
    try:
        return from_plain(str(name), settings)
    except (TypeError, AttackError) as error:
        raise RecordError(
            f"step {step.name} does not have the settings of {name}: {error}"
        ) from None


def _has_gradients(config: AttackConfig) -> bool:
    """Whether an attack asks this package's classifier for gradients; foolbox has its own way."""
    return knowledge_of(config) == "white-box" and not isinstance(config, FoolboxConfig)


def is_compiled(step: StepInfo) -> bool:
    """Whether a step is an attack whose gradients are compiled."""
    return step.kind == "attack" and step.parameters.get(COMPILED) is True


def company_notices(steps: tuple[StepInfo, ...]) -> list[str]:
    """A line for each attack whose verdicts hang on which samples it gets together."""
    return [
        f"foolbox's {config.name} lets samples of one tile influence one another: its verdicts "
        "can change with the choice of samples, and the record is not reproducible"
        for config in (attack_of(step) for step in steps if step.kind == "attack")
        if isinstance(config, FoolboxConfig) and in_company(config.name)
    ]


@dataclass(frozen=True)
class Proof:
    """A certificate's settings; every one of them is part of the protocol.

    Attributes:
        method: One of `METHODS`.
        tile: Samples that are bounded together.
        budget: How much work it may spend on a sample.
        samples: Those it runs on, as in `leaderboards.manifest.StepInfo`; it audits with the least
            budget.
        tolerance: Of a search for radii: ratio of two radii that are tried, less 1; else None.
    """

    method: Method
    tile: int
    budget: Budget
    samples: SampleScope = "open"
    tolerance: float | None = None

    def step(self, name: str) -> StepInfo:
        """The step of a protocol with these settings: those that its method looks at."""
        parameters: dict[str, Parameter] = {
            "method": self.method,
            "tile": self.tile,
            "samples": self.samples,
        }
        if self.method in ("alpha-crown", "complete"):
            parameters["iterations"] = self.budget.iterations
        if self.method == "complete":
            parameters["subproblems"] = self.budget.subproblems
        if self.budget.seconds is not None:
            parameters["seconds"] = self.budget.seconds
        if self.tolerance is not None:
            parameters["tolerance"] = self.tolerance
        return StepInfo(
            name=name, kind="certificate", version=CERTIFICATE_VERSION, parameters=parameters
        )

    @classmethod
    def of(cls, step: StepInfo) -> Proof:
        """Return the settings of a step that may be on a stranger's record.

        Raises:
            RecordError: They are not those of a certificate that is known here.
        """
        given = dict(step.parameters)
        budget = {f.name: given.pop(f.name) for f in fields(Budget) if f.name in given}
        try:
            proof = cls(budget=Budget(**budget), **given)  # type: ignore[arg-type]  # checked next
            known = proof.method in METHODS and proof.samples in get_args(SampleScope)
            known = known and 1 <= proof.tile <= 2**16
        except (TypeError, CertifyError):
            known = False
        if not known:
            raise RecordError(f"step {step.name} is no certificate that this version knows")
        return proof

    @property
    def finds(self) -> bool:
        """Whether it finds counterexamples, so that it can break samples."""
        return self.method == "complete" and self.tolerance is None

    @property
    def least(self) -> Proof:
        """The same method with the least work that it can do: for samples that are broken."""
        return replace(self, budget=replace(self.budget, iterations=1, subproblems=1))


def _name(attack: AttackConfig) -> str:
    """Name of the step of one attack."""
    if not isinstance(attack, FoolboxConfig):
        return kind_of(attack).name
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", attack.name).lower()
    return f"foolbox-{words.removesuffix('-attack')}"


def _attack_steps(
    attack: AttackConfig | Suite | None, threat: ThreatModel, budget: AttackBudget, compile: bool
) -> tuple[StepInfo, ...]:
    if attack is None:
        return ()
    suite = attack if isinstance(attack, Suite) else Suite("alone", ((_name(attack), attack),))
    for name, config in (*suite.parts, *suite.closing):
        if threat.norm not in kind_of(config).norms:
            norms = ", ".join(kind_of(config).norms)
            fit = ", ".join(kind.name for kind in KINDS.values() if threat.norm in kind.norms)
            if suite.name in SUITES:
                raise UsageError(
                    f"the suite {suite.name} has no form in {threat.norm} (its {name} is for "
                    f"{norms}): --attack takes {fit} there"
                )
            raise UsageError(
                f"the attack {name} is for {norms}, not for {threat.norm}, which takes {fit}"
            )
        if isinstance(config, FoolboxConfig):
            config.build(threat.norm)  # refuses what is not for this norm before a run begins
        if isinstance(config, NearestConfig) and threat.norm == "l0":
            config.check_l0()  # likewise
        if suite.minimal and kind_of(config).minimal == "never":
            fit = ", ".join(kind.name for kind in KINDS.values() if kind.minimal != "never")
            raise UsageError(f"the attack {name} does not look for the nearest example: use {fit}")
    parts = [(*part, None) for part in suite.parts] + [(*p, suite.near) for p in suite.closing]
    return tuple(
        attack_step(name, config, threat, budget, suite.minimal, near, compile)
        for name, config, near in parts
    )


def protocol_steps(
    attack: AttackConfig | Suite | None,
    certify: CertifyConfig | None,
    threat: ThreatModel,
    budget: AttackBudget = UNLIMITED,
    compile: bool = False,
) -> tuple[StepInfo, ...]:
    """Return the steps after `clean`, in the order they run.

    Raises:
        AttackError: Foolbox refuses the attack.
        UsageError: Neither an attack nor a certificate, an attack for another norm, a certificate
            for l0, or a radius of a threat model of eps 0.
    """
    strong = _attack_steps(attack, threat, budget, compile)
    if certify is None:
        if not strong:
            raise UsageError("neither an attack nor a certificate: give one of them")
        return strong
    if threat.norm == "l0":
        raise UsageError("no proof is about l0: leave out the certificate")
    names = certify.methods
    made = [
        Proof(name, TILES[name], certify.budget, "audit" if name == names[0] else "open").step(name)
        for name in names
    ]
    if certify.method != CASCADE or any(step.minimal for step in strong):
        steps = [*strong, *made]  # what runs on every sample goes first: it spares proofs
    else:
        # another loss than the usual one: the long attack then repeats no step of the short one
        quick = PGDConfig(steps=20, restarts=1, loss="margin")
        opening = (attack_step(QUICK, quick, threat, budget, compile=compile),) if strong else ()
        steps = [*opening, *made[:3], *strong, *made[3:]]
    if certify.radius:
        if threat.eps == 0:
            raise UsageError("a certified radius is measured from eps on: give an eps above 0")
        method = RADIUS_METHOD if certify.method == CASCADE else names[0]
        measure = Proof(method, TILES[method], certify.budget, "right", TOLERANCE)
        steps.append(measure.step(RADIUS))
    return tuple(steps)
