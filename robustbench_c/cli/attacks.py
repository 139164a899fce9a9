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
    *("pgd", "apgd", "apgd-halving", "fab", "fmn", "ddn", "pdpgd", "square", "guided"),
    *("hop-skip-jump", "transformations", "foolbox"),
)
"""Names in `attacks.registry`, which imports torch: help and wrong usage must not wait for it."""
SUITES = ("auto", "autoattack")
"""Names in `attacks.suites`."""
NONE = "none"
_FOOLBOX = "foolbox:"
SETTINGS = ("steps", "restarts", "step_size", "loss", "goal", "targets")
"""Options that are settings of attacks, each of those that have it."""


def attack_names() -> list[str]:
    """Everything that `--attack` takes, but for the attacks of foolbox."""
    return [*(name for name in KINDS if name != "foolbox"), *SUITES, NONE]


def check_attack(name: str) -> None:
    """Raise an error, with a hint, unless there is such an attack."""
    if name.startswith(_FOOLBOX):
        from attacks.foolbox_adapter import check_name

        check_name(name.removeprefix(_FOOLBOX))
    elif name not in attack_names():
        raise UsageError(f"no attack '{name}'; {did_you_mean(name, attack_names())}")


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
    given |= dict(map(_pair, more))
    if name in SUITES:
        if given:
            raise UsageError(f"--{_option(next(iter(given)))} is no setting of the suite '{name}'")
        return suites.SUITES[name]
    config: Any
    if name.startswith(_FOOLBOX):
        own = {key: given.pop(key) for key in ("restarts",) if key in given}
        config = registry.KINDS["foolbox"].config(name.removeprefix(_FOOLBOX), given, **own)
    else:
        known = {field.name: field.default for field in fields(registry.KINDS[name].config)}
        for key, value in given.items():
            if key not in known:
                hint = did_you_mean(key, list(known))
                raise UsageError(f"the attack '{name}' has no '{key}'; {hint}")
            if isinstance(known[key], int | float) and not isinstance(value, int | float):
                raise UsageError(f"{key} of the attack '{name}' is a number, not '{value}'")
        config = registry.KINDS[name].config(**given)
    made: AttackConfig = config
    return made


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--set '{text}' is not of the form KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _option(key: str) -> str:
    return key.replace("_", "-") if key in SETTINGS else f"set {key}"
