"""`robust-eval --minimal`: the nearest adversarial example of every sample, for all eps at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_c.cli import options
from robustbench_c.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from attacks.registry import AttackConfig
    from attacks.suites import Suite
    from leaderboards.distances import Distances

Minimal = Annotated[
    bool,
    typer.Option(
        "--minimal",
        help="Look for the nearest adversarial example of every sample, for a curve over all eps "
        "[by --attack nearest].",
    ),
]
NEAREST = "nearest"
"""The attack, in `attacks.registry`, that runs where none is named; it cannot but look for them."""
ATTACKS = ("fab", "fmn", "ddn", "pdpgd", "sigma-zero")
"""Those, there, that do it if they are asked to. It imports torch."""


def minimal_attack(context: typer.Context, name: str, minimal: bool) -> tuple[str, bool]:
    """The attack that runs, and whether it looks for the nearest adversarial examples.

    Args:
        context: Of the command.
        name: What `--attack` says.
        minimal: What `--minimal` says.

    Raises:
        UsageError: The attack cannot, or it is fixed by a protocol or about explanations.
    """
    if minimal and not options.is_given(context, "attack"):
        name = NEAREST
    minimal = minimal or name == NEAREST
    if not minimal:
        return name, False
    for key in ("protocol", "explain"):
        if context.params[key] is not None:
            raise UsageError(f"--minimal does not go with --{key}: leave one of them out")
    if name not in (*ATTACKS, NEAREST):
        known = ", ".join((NEAREST, *ATTACKS))
        raise UsageError(
            f"--minimal: the attack '{name}' does not look for the nearest example; use {known}"
        )
    return name, True


def for_nearest(attack: AttackConfig | Suite) -> AttackConfig | Suite:
    """The same attack, looking for nearest adversarial examples."""
    from attacks.registry import kind_of
    from attacks.suites import Suite

    if isinstance(attack, Suite) or kind_of(attack).minimal == "always":
        return attack
    name = kind_of(attack).name
    return Suite(name, ((f"{name}-minimal", attack),), minimal=True)


def distance_table(distances: Distances) -> Table:
    """Quantiles of the distances that were found."""
    from rich.table import Table

    from leaderboards.distances import Quantiles

    names = [name for name in Quantiles.model_fields if name != "samples"]
    table = Table("distance found", *names)
    said = f"{distances.samples} of {distances.searched} samples"
    table.add_row(said, *(f"{getattr(distances, name):.4g}" for name in names))
    return table


def gap_lines(distances: Distances | None) -> list[str]:
    """How often certified radius and found distance meet, in a line; none without radii."""
    if distances is None:
        return []
    rates = (("1%", distances.within_1_percent), ("10%", distances.within_10_percent))
    said = [
        f"by at most {share} on {rate.value:.2%} ({rate.k} of {rate.n})"
        for share, rate in rates
        if rate is not None
    ]
    return [f"distance found exceeds certified radius {', '.join(said)}"] if said else []
