"""The attacks of foolbox by name, and their settings."""

from __future__ import annotations

import difflib
import importlib
import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal

from attacks.errors import AttackError
from attacks.threat import NORMS, AnyNorm

Knowledge = Literal["white-box", "score", "decision", "none"]
"""What an attacker knows: gradients, logits, the predicted class, or nothing of the model."""
_SCORES = ("GenAttack",)
_DECISIONS = (
    *("BinarizationRefinement", "BinarySearchContrast", "Boundary", "GaussianBlur", "HopSkipJump"),
    *("Inversion", "L2Additive", "L2ClippingAware", "L2ContrastReduction", "L2Repeated"),
    *("LinearSearch", "LinfAdditive", "LinfRepeated", "Pointwise", "SaltAndPepper"),
)
"""How the names of those begin that look at predictions alone; noise is judged by them as well."""
_IN_COMPANY = (
    *("BinarizationRefinement", "EAD", "GenAttack", "HopSkipJump", "L2CarliniWagner", "Pointwise"),
    *("L0BrendelBethge", "L1BrendelBethge", "L2BrendelBethge", "LinfinityBrendelBethge"),
)
"""How the names of those begin whose results for a sample can hang on the others of its batch."""
_OURS = ("distance", "init_attack", "tensorboard")  # options that are set here, or not at all


def library(module: str = "foolbox.attacks") -> Any:
    """A module of foolbox.

    Raises:
        AttackError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise AttackError(
            f"attacks of foolbox need foolbox ({error}): pip install 'foolbox>=3.3.4'"
        ) from error


def _unknown(what: str, name: str, known: list[str]) -> AttackError:
    folded = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.5)
    hint = (
        f"did you mean '{folded[close[0]]}'?" if close else f"known: {', '.join(known) or 'none'}"
    )
    return AttackError(f"{what} '{name}': {hint}")


def in_company(name: str) -> bool:
    """Whether what an attack of foolbox finds for a sample can hang on the others of its tile."""
    return name.startswith(_IN_COMPANY)


def _classes() -> dict[str, Any]:
    """Every attack with a norm that needs no data of its own, by name."""
    attacks, base = library(), library("foolbox.attacks.base").AttackWithDistance
    return {
        name: kind
        for name, kind in sorted(vars(attacks).items())
        if inspect.isclass(kind)
        and issubclass(kind, base)
        and not inspect.isabstract(kind)
        and kind is not attacks.DatasetAttack
    }


def _norms(kind: Any) -> tuple[str, ...]:
    """The norms that an attack can be measured in."""
    if "constraint" in inspect.signature(kind).parameters:
        return ("linf", "l2")  # HopSkipJump; the distance it states is another
    if issubclass(kind, library("foolbox.attacks.base").FlexibleDistanceMinimizationAttack):
        return NORMS
    return (f"l{kind.__new__(kind).distance.p:g}",)


def foolbox_attacks(norm: AnyNorm | None = None) -> list[str]:
    """Names of the attacks of foolbox that can be run here.

    Args:
        norm: Only those for this norm; None: for any of `attacks.threat.NORMS`.

    Raises:
        AttackError: Foolbox is not installed.
    """
    wanted = set(NORMS if norm is None else (norm,))
    return [name for name, kind in _classes().items() if wanted & set(_norms(kind))]


def check_name(name: str) -> None:
    """Raise AttackError, with a hint, unless foolbox is there and has this attack."""
    classes = _classes()
    if name not in classes:
        raise _unknown("foolbox has no attack", name, list(classes))


def fits(value: object, hint: Any) -> bool:
    """Whether a plain value is of an annotated type."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, UnionType, tuple):
        parts = [part for part in typing.get_args(hint) if part is not ...]
        if origin is tuple:
            return isinstance(value, list | tuple) and all(fits(v, parts[0]) for v in value)
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return value in typing.get_args(hint)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _check_size(what: str, value: object, least: int) -> None:
    """Raise unless the numbers in an option are finite and at least `least`."""
    parts = value if isinstance(value, list | tuple) else (value,)
    numbers = [v for v in parts if isinstance(v, int | float) and not isinstance(v, bool)]
    if not all(least <= number < float("inf") for number in numbers):
        raise AttackError(f"{what} is {value!r}, it must be finite and at least {least}")


@dataclass(frozen=True)
class FoolboxConfig:
    """Settings of an attack of foolbox; every one of them is part of the protocol.

    Attributes:
        name: Class in `foolbox.attacks`, with or without "foolbox:" before it.
        options: Arguments of the class, plain values; those left out are foolbox's own, and are
            often weak: its LinfPGD takes 40 steps of eps / 30. Lengths are in [0, 1].
        restarts: Runs of a sample, >= 1; it stops at the first that breaks it.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    restarts: int = 1

    def __post_init__(self) -> None:
        if self.restarts < 1:
            raise AttackError(f"restarts is {self.restarts}: it must be at least 1")
        object.__setattr__(self, "name", self.name.removeprefix("foolbox:"))
        check_name(self.name)
        classes = _classes()
        parameters = inspect.signature(classes[self.name]).parameters
        hints = typing.get_type_hints(classes[self.name].__init__)
        known = [name for name in parameters if name not in _OURS]
        for name, value in self.options.items():
            if name not in known:
                raise _unknown(f"{self.name} has no option", name, known)
            if not fits(value, hints[name]):
                wanted = inspect.formatannotation(hints[name])
                raise AttackError(f"{self.name}: {name} is {value!r}, it must be {wanted}")
            free = fits(0.5, hints[name]) or name == "channel_axis"
            _check_size(f"{self.name}: {name}", value, 0 if free else 1)
        for name in known:
            if parameters[name].default is inspect.Parameter.empty and name not in self.options:
                raise AttackError(f"{self.name} needs the option '{name}'")

    @property
    def knowledge(self) -> Knowledge:
        """What the attack needs to know of a model."""
        if self.name in _SCORES:
            return "score"
        return "decision" if self.name.startswith(_DECISIONS) else "white-box"

    def build(self, norm: AnyNorm) -> Any:
        """The attack, for one norm.

        Raises:
            AttackError: It is not one for this norm, or foolbox refuses an option.
        """
        kind, options = _classes()[self.name], dict(self.options)
        parameters = inspect.signature(kind).parameters
        if "distance" in parameters:
            options["distance"] = getattr(library("foolbox.distances"), norm)
        able = _norms(kind)
        if "constraint" in parameters and norm in able:
            able = (options.setdefault("constraint", norm),)
        if norm not in able:
            raise AttackError(
                f"foolbox's {self.name} is an attack in {' or '.join(able)}, the threat model is "
                f"in {norm}: for that there are {', '.join(foolbox_attacks(norm))}"
            )
        try:
            return kind(**options)
        except ImportError as error:
            raise AttackError(f"foolbox's {self.name} needs more: {error}, install it") from error
        except Exception as error:  # a stranger's code
            raise AttackError(f"foolbox's {self.name} refuses its options: {error}") from error
