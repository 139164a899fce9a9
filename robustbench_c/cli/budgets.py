"""`--max-queries` and `--max-seconds`: what the attacks of a run may spend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_c.cli import options
from robustbench_c.cli.attacks import NONE
from robustbench_c.errors import UsageError

if TYPE_CHECKING:
    from robustbench_c.evaluation.budgets import AttackBudget

LIMITS = ("max_queries", "max_seconds")

Queries = Annotated[
    int | None,
    typer.Option(
        "--max-queries",
        min=1,
        max=10**9,
        help="Forward passes of a sample, for all attacks together, gradients or not.",
    ),
]
Seconds = Annotated[
    float | None,
    typer.Option(
        "--max-seconds", min=1e-3, max=1e9, help="Time of all attacks together; not reproducible."
    ),
]


def check_limits(context: typer.Context) -> None:
    """Raise UsageError if there is a limit, and no attack to limit."""
    given = options.given_of(context, LIMITS)
    if given and context.params["attack"] == NONE:
        raise UsageError(f"{given} is a limit of attacks, and --attack none is none")


def budget_of(context: typer.Context) -> AttackBudget:
    """What the attacks may spend."""
    from robustbench_c.evaluation.budgets import AttackBudget

    return AttackBudget(*(context.params[name] for name in LIMITS))
