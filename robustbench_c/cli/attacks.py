"""`--attack` and its settings, as the attack they name."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from robustbench_c.cli import options
from robustbench_c.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import typer

    from attacks.registry import AttackConfig
    from attacks.suites import Suite

NONE = "none"
SETTINGS = ("steps", "restarts", "step_size", "loss", "goal", "targets")
"""Options that are settings of attacks, each of those that have it."""


def attack_names() -> list[str]:
    """Everything that `--attack` takes."""
    from attacks.registry import KINDS
    from attacks.suites import SUITES

    return [*KINDS, *SUITES, NONE]


def check_attack(name: str) -> None:
    """Raise UsageError, with a hint, unless there is such an attack."""
    if name not in attack_names():
        raise UsageError(f"no attack '{name}'; {did_you_mean(name, attack_names())}")


def attack_of(context: typer.Context, name: str) -> AttackConfig | Suite:
    """The attack `name` with the settings that were given on the command line.

    Raises:
        UsageError: A setting was given that this attack does not have.
        AttackError: A setting is not legal.
    """
    from attacks.registry import KINDS
    from attacks.suites import SUITES

    given = {key: context.params[key] for key in SETTINGS if options.is_given(context, key)}
    kind = KINDS.get(name)
    known = {field.name for field in fields(kind.config)} if kind else set()
    for key in given:
        if key not in known:
            option = key.replace("_", "-")
            has = ", ".join(f"--{k.replace('_', '-')}" for k in SETTINGS if k in known)
            raise UsageError(
                f"--{option} is no setting of the attack '{name}' ({has or 'no options'})"
            )
    if kind is None:
        return SUITES[name]
    config: Any = kind.config(**given)
    made: AttackConfig = config
    return made
