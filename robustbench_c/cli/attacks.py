"""`--attack` and its settings, as the attack they name."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from robustbench_c.cli import options
from robustbench_c.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import typer

    from attacks.registry import AttackConfig
    from attacks.suites import Suite

KINDS = (
    *("pgd", "apgd", "apgd-halving", "fab", "fmn", "ddn", "pdpgd", "sigma-zero"),
    *("nearest", "square", "guided", "hop-skip-jump", "transformations", "foolbox"),
)
"""Names in `attacks.registry`, which imports torch: help and wrong usage must not wait for it."""
SUITES = ("auto", "autoattack")
"""Names in `attacks.suites`."""
NONE = "none"
_FOOLBOX = "foolbox:"
_MOST = 1_000_000
SETTINGS = ("steps", "restarts", "step_size", "loss", "goal", "targets")
"""Options that are settings of attacks, each of those that have it."""


def attack_names() -> list[str]:
    """Everything that `--attack` takes, but for the attacks of foolbox."""
    return [*(name for name in KINDS if name != "foolbox"), *SUITES, NONE]


def check_attack(name: str) -> None:
    """Raise an error, with a hint, unless there is such an attack."""
    if name.startswith(_FOOLBOX):
        from attacks.foolbox_config import check_name

        check_name(name.removeprefix(_FOOLBOX))
    elif name not in attack_names():
        raise UsageError(f"no attack '{name}'; {did_you_mean(name, attack_names())}")


def check_settings(context: typer.Context) -> None:
    """Raise UsageError if there are settings of an attack, and no attack."""
    given = options.given_of(context, (*SETTINGS, "set_"))
    if given and context.params["attack"] == NONE:
        raise UsageError(
            f"{given.rstrip('-')} is a setting of an attack, and --attack none is none"
        )


def attack_of(context: typer.Context, name: str, more: list[str]) -> AttackConfig | Suite:
    """The attack `name` with the settings that were given on the command line.

    Args:
        context: Of the command.
        name: What `--attack` says.
        more: Settings as KEY=VALUE.

    Raises:
        UsageError: A setting was given that this attack does not have.
        AttackError: A setting is not legal.
    """
    from attacks import registry, suites

    given = {key: context.params[key] for key in SETTINGS if options.is_given(context, key)}
    for key, value in map(_pair, more):
        if key in given:
            raise UsageError(f"{key} is given twice (--set {key}=...): leave one of them out")
        given[key] = value
    if name in SUITES:
        if given:
            raise UsageError(f"--{_option(next(iter(given)))} is no setting of the suite '{name}'")
        return suites.SUITES[name]
    if name.startswith(_FOOLBOX):
        own = {
            key if key == "restarts" else registry.OPTION + key: value
            for key, value in given.items()
        }
        return registry.from_plain("foolbox", {"name": name.removeprefix(_FOOLBOX), **own})
    known = [field.name for field in fields(registry.KINDS[name].config)]
    for key in given:
        if key not in known:
            raise UsageError(f"the attack '{name}' has no '{key}'; {did_you_mean(key, known)}")
    return registry.from_plain(name, given)


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--set '{text}' is not of the form KEY=VALUE")
    try:
        read = json.loads(value)
    except ValueError:
        return key, value
    except RecursionError:
        raise UsageError(f"--set {key}=...: brackets are nested too deep") from None
    if isinstance(read, int | float) and abs(read) > _MOST:
        raise UsageError(f"--set '{text}' is out of range: numbers are at most {_MOST}")
    return key, read


def _option(key: str) -> str:
    return key.replace("_", "-") if key in SETTINGS else f"set {key}"
