"""The attacks by name: their settings, what they need to know of a model, and how to run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from attacks.apgd import APGDConfig, apgd
from attacks.ddn import DDNConfig, ddn
from attacks.errors import AttackError
from attacks.fab import FABConfig, fab
from attacks.fmn import FMNConfig, fmn
from attacks.foolbox_adapter import foolbox_attack
from attacks.foolbox_config import FoolboxConfig, Knowledge, fits
from attacks.guided import GuidedConfig, guided
from attacks.halving import HalvingConfig, halving
from attacks.hop_skip_jump import HopSkipJumpConfig, hop_skip_jump
from attacks.nearest import NearestConfig, nearest
from attacks.pdpgd import PDPGDConfig, pdpgd
from attacks.pgd import PGDConfig, pgd
from attacks.result import AttackResult
from attacks.sigma_zero import SigmaZeroConfig, sigma_zero
from attacks.square import SquareConfig, square
from attacks.threat import NORMS, AnyNorm
from attacks.transform_search import TransformConfig, transformations
from attacks.transformations import FAMILIES, FAMILY

AttackConfig = (
    PGDConfig
    | APGDConfig
    | HalvingConfig
    | FABConfig
    | FMNConfig
    | DDNConfig
    | PDPGDConfig
    | SigmaZeroConfig
    | NearestConfig
    | SquareConfig
    | HopSkipJumpConfig
    | GuidedConfig
    | TransformConfig
    | FoolboxConfig
)
"""Settings of an attack; their type says which."""
Plain = int | float | str | bool | None
OPTION = "option."
"""Begins the names of foolbox's own settings."""
_LATER: dict[str, Plain] = {"patience": 1.0, "projection": "exact", "rescale": True}
"""Settings that older records lack, and what they are there: it is not written down."""


@dataclass(frozen=True)
class Kind:
    """An attack.

    Attributes:
        name: Its name in records and on the command line.
        config: Type of its settings.
        run: `run(classifier, x, y, ids, threat, config, seed, confirm=, progress=)`.
        passes: Most forward passes of a sample, from its settings and the number of classes; None
            where that is not known beforehand.
        knowledge: What it needs to know; see `knowledge_of`.
        norms: The norms it is for.
        minimal: Whether it can look for the nearest adversarial example, if asked by
            `run(minimal=True)` or always.
        versions: Version of the algorithm by norm, raised when its results change; 1 elsewhere.
    """

    name: str
    config: type[Any]
    run: Callable[..., AttackResult]
    passes: Callable[[Any, int], int | None]
    knowledge: Knowledge = "white-box"
    norms: tuple[AnyNorm, ...] = NORMS
    minimal: Literal["never", "asked", "always"] = "never"
    versions: Mapping[AnyNorm, int] = field(default_factory=dict)


def _of_runs(config: Any, classes: int) -> int:
    """Of attacks whose runs are restarts or targets or both."""
    restarts, targets = getattr(config, "restarts", 1), getattr(config, "targets", 0)
    return int((config.steps + 1) * restarts * max(1, min(targets, classes - 1)))


def _of_rounds(config: HalvingConfig, classes: int) -> int:
    return config.passes(classes)


def _of_searches(config: NearestConfig, classes: int) -> int:
    runs = min(config.targets, classes - 1) * (config.restarts + 2)
    return runs * (config.steps + 1) + config.queries


def _of_queries(config: SquareConfig | HopSkipJumpConfig | GuidedConfig, classes: int) -> int:
    return config.queries * config.restarts


def _of_grid(config: TransformConfig, classes: int) -> int:
    families = FAMILIES if config.families is None else config.families
    return sum(FAMILY[name].variants for name in families) * config.levels + config.draws + 1


def _unknown(config: FoolboxConfig, classes: int) -> None:
    return None


KINDS = {
    kind.name: kind
    for kind in (
        Kind("pgd", PGDConfig, pgd, _of_runs),
        Kind("apgd", APGDConfig, apgd, _of_runs),
        Kind("apgd-halving", HalvingConfig, halving, _of_rounds),
        Kind("fab", FABConfig, fab, _of_runs, minimal="asked"),
        Kind("fmn", FMNConfig, fmn, _of_runs, minimal="asked"),
        Kind("ddn", DDNConfig, ddn, _of_runs, norms=("l2",), minimal="asked"),
        Kind("pdpgd", PDPGDConfig, pdpgd, _of_runs, norms=("l1",), minimal="asked"),
        Kind("sigma-zero", SigmaZeroConfig, sigma_zero, _of_runs, norms=("l0",), minimal="asked"),
        Kind(
            "nearest",
            NearestConfig,
            nearest,
            _of_searches,
            norms=get_args(AnyNorm),
            minimal="always",
            versions={"linf": 2, "l2": 2, "l1": 2},
        ),
        Kind("square", SquareConfig, square, _of_queries, "score", versions={"l2": 2, "l1": 2}),
        Kind("guided", GuidedConfig, guided, _of_queries, "score"),
        Kind(
            "hop-skip-jump",
            HopSkipJumpConfig,
            hop_skip_jump,
            _of_queries,
            "decision",
            ("linf", "l2"),
        ),
        Kind("transformations", TransformConfig, transformations, _of_grid, "decision"),
        Kind("foolbox", FoolboxConfig, foolbox_attack, _unknown),
    )
}


def kind_of(config: AttackConfig) -> Kind:
    """The attack that settings are for."""
    return next(kind for kind in KINDS.values() if type(config) is kind.config)


def knowledge_of(config: AttackConfig) -> Knowledge:
    """What an attack needs to know; of one of foolbox, what that one needs."""
    return config.knowledge if isinstance(config, FoolboxConfig) else kind_of(config).knowledge


def in_words(hint: Any) -> str:
    """What values are of an annotated type: "a whole number", "some of blur, noise or none"."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin is tuple:
        return in_words(parts[0]).replace("one of", "some of", 1)
    if parts:
        return " or ".join(map(in_words, parts))
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}
    return words.get(hint, "none")


def settings_of(kind: Kind) -> dict[str, str]:
    """The settings of an attack with their defaults, and what else they can be if it is a word."""
    hints, found = get_type_hints(kind.config), {}
    for setting in fields(kind.config):
        if setting.name == "options" or setting.default is MISSING:
            continue
        default, hint = setting.default, hints[setting.name]
        text = "none" if default is None else str(default)
        words = "Literal" in str(hint)
        found[setting.name] = (
            f"{text} ({in_words(hint).removeprefix('one of ')})" if words else text
        )
    return found


def to_plain(config: AttackConfig) -> dict[str, Plain]:
    """Every setting of an attack as a plain value, for a record."""
    settings: dict[str, Any] = asdict(config)
    if isinstance(config, FoolboxConfig):
        options = settings.pop("options")
        settings |= {f"{OPTION}{name}": value for name, value in options.items()}
    settings = {k: v for k, v in settings.items() if k not in _LATER or v != _LATER[k]}
    return {k: ",".join(v) if isinstance(v, tuple) else v for k, v in settings.items()}


def from_plain(name: str, settings: dict[str, Plain]) -> AttackConfig:
    """The settings of an attack from those that `to_plain` gave.

    Raises:
        AttackError: A value is not legal, or not of its type.
        KeyError: No attack has this name.
        TypeError: It has no such setting.
    """
    kind, given = KINDS[name], dict[str, Any](settings)
    if kind.config is FoolboxConfig:
        options = {key: given.pop(key) for key in list(given) if key.startswith(OPTION)}
        given["options"] = {key.removeprefix(OPTION): value for key, value in options.items()}
    if kind.config is TransformConfig and isinstance(families := given.get("families"), str | list):
        given["families"] = tuple(families.split(",") if isinstance(families, str) else families)
    for key, hint in get_type_hints(kind.config).items():
        if key == "options" or get_origin(hint) is Literal:  # the settings look at those
            continue
        if key in given and not fits(given[key], hint):
            value = given[key]
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else repr(value)
            raise AttackError(f"{key} of the attack '{name}' is {shown}, not {in_words(hint)}")
    config: AttackConfig = kind.config(**given)
    return config
