"""How a run is done again: the command that follows from its manifest."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from leaderboards.manifest import ExplanationInfo, Manifest, StepInfo

_CASCADE = 5
"""Methods of a cascade; a run by one method has one."""
_OPENING = "pgd-quick"
"""The attack that a cascade adds by itself."""
_SUITES = {"apgd": "auto", "apgd-ce": "autoattack"}
"""Suites by the first of their attacks."""
_OPTIONS = ("steps", "restarts", "step_size", "loss", "goal", "targets")
_LIMITS = {"max_queries": "--max-queries", "seconds": "--max-seconds"}
_TOLD = ("attack", "knowledge", "name", "minimal", "random_start")
"""Parameters that are no settings of their own."""


@dataclass(frozen=True)
class Reproduction:
    r"""How to do a run again.

    Attributes:
        command: For a shell; every word from the record is quoted, and what cannot be seen, such
            as line breaks and marks of direction, is written as the shell's `$'\U0000202e'`.
        whole: Whether every step of the protocol follows from it. The manifest does not hold the
            command line; the hash of the protocol tells whether the same was run.
    """

    command: str
    whole: bool


def reproduction(manifest: Manifest) -> Reproduction:
    """Return the commands for a run."""
    protocol, threat, data = manifest.protocol, manifest.protocol.threat, manifest.data
    smoothed = [s for s in protocol.steps if s.kind == "certificate" and "sigma" in s.parameters]
    if smoothed:
        command, whole = _smoothing(manifest, smoothed[0])
        return Reproduction(command, whole)
    changed = protocol.corruption is not None or protocol.transformation is not None
    words = ["robust-corrupt" if changed else "robust-eval", "--model", manifest.model.name]
    whole = not changed
    if protocol.name is not None:
        words += ["--protocol", protocol.name]
    else:
        words += ["--data", data.name, "--split", data.split]
        if not changed:
            words += ["--norm", threat.norm, "--eps", f"{threat.eps!r}"]
            words += ["--eps-unit", threat.eps_unit] if threat.eps_unit != "input" else []
            words += (
                ["--immutable", "none"] if len(data.shape) == 1 and not threat.immutable else []
            )
            attacks, known = _attack_words(protocol.steps)
            words += _explained_words(protocol.explanation) if protocol.explanation else attacks
            proofs, proved = _proof_words(protocol.steps)
            words += [] if protocol.explanation else proofs
            whole = known and proved and protocol.explanation is None
    words += ["--samples", str(data.samples), "--seed", str(manifest.seed)]
    return Reproduction(_typed(words), whole)


def _typed(words: Iterable[str]) -> str:
    """Words as they are typed in bash or zsh; nothing in them is unseen."""
    return " ".join(shlex.quote(w) if w.isprintable() else f"$'{_shown(w)}'" for w in words)


def _shown(word: str) -> str:
    return "".join(
        f"\\{c}" if c in "\\'" else c if c.isprintable() else f"\\U{ord(c):08x}" for c in word
    )


def _smoothing(manifest: Manifest, step: StepInfo) -> tuple[str, bool]:
    """The command of a smoothed classifier, whose card names the model below; whether it does."""
    base, data = (manifest.model.card or {}).get("base_name"), manifest.data
    words = ["robust-smooth", "--model", str(base or manifest.model.name)]
    words += ["--data", data.name, "--split", data.split]
    words += [
        "--eps",
        f"{manifest.protocol.threat.eps!r}",
        "--smooth",
        f"{step.parameters['sigma']}",
    ]
    for key in ("n0", "n", "alpha"):
        if key in step.parameters:
            words += [f"--smooth-{key}", f"{step.parameters[key]}"]
    words += ["--samples", str(data.samples), "--seed", str(manifest.seed)]
    return _typed(words), isinstance(base, str)


def _attack_words(steps: tuple[StepInfo, ...]) -> tuple[list[str], bool]:
    """Options for the attacks, and whether they say all."""
    attacks = [step for step in steps if step.kind == "attack" and step.name != _OPENING]
    if not attacks:
        return ["--attack", "none"], True
    first = attacks[0]
    limits = [
        word
        for key, option in _LIMITS.items()
        if (limit := first.parameters.get(key)) is not None
        for word in (option, f"{limit}")
    ]
    if len(attacks) > 1:
        return ["--attack", _SUITES.get(first.name, first.name), *limits], first.name in _SUITES
    told = first.parameters
    name = str(told.get("attack", "pgd"))
    foolbox = name == "foolbox"
    words = ["--attack", f"foolbox:{told.get('name')}" if foolbox else name]
    for key, value in told.items():
        if key in _TOLD or key in _LIMITS or value is None:
            continue
        key = key.removeprefix("option.")
        if key in _OPTIONS:
            words += [f"--{key.replace('_', '-')}", str(value)]
        else:
            words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    minimal = ["--minimal"] if told.get("minimal") is True else []
    return words + minimal + limits, True


def _proof_words(steps: tuple[StepInfo, ...]) -> tuple[list[str], bool]:
    """Options for the certificates, and whether they say all."""
    proofs = [step for step in steps if step.kind == "certificate"]
    radius = [step for step in proofs if "tolerance" in step.parameters]
    proofs = [step for step in proofs if "tolerance" not in step.parameters]
    if not proofs:
        return [], not radius
    last = proofs[-1].parameters
    if len(proofs) not in (1, _CASCADE) or "method" not in last:
        return [], False
    words = ["--certify", "cascade" if len(proofs) == _CASCADE else str(last["method"])]
    for key in ("iterations", "subproblems", "seconds"):
        if key in last:
            words += [f"--certify-{key}", str(last[key])]
    return words + (["--radius"] if radius else []), True


def _explained_words(info: ExplanationInfo) -> list[str]:
    """Options for what is explained, without those of the attack on it."""
    criterion = info.criterion
    words = ["--explain", info.kind, "--explain-of", info.of]
    if criterion.measure == "cosine":
        words += ["--min-cosine", f"{1 - criterion.threshold:g}"]
    else:
        words += ["--measure", criterion.measure, "--delta", f"{criterion.threshold:g}"]
    words += ["--relative"] if criterion.relative else []
    words += ["--signed"] if criterion.signed else []
    words += ["--top-k", str(criterion.k)] if criterion.k is not None else []
    if info.gamma:
        words += [
            "--gamma",
            f"{info.gamma:g}",
            *([] if info.gamma_relative else ["--gamma-absolute"]),
        ]
    return words
