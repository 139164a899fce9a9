"""Runs about corruptions and simple transformations, as tables."""

from __future__ import annotations

from rich.table import Table

from leaderboards.changed import CorruptionSummary, TransformationSummary
from leaderboards.errors import one_line
from leaderboards.rates import Rate
from leaderboards.summary import Summary
from robustbench_c.cli.console import wide_console


def print_corruptions(summary: Summary, found: CorruptionSummary) -> None:
    """Print accuracy by kind and severity, and what sums it up."""
    severities = list(dict.fromkeys(cell.severity for cell in found.cells))
    table = Table()
    table.add_column("accuracy (95% interval)")
    for severity in severities:
        table.add_column(f"severity {severity}")
    table.add_column("mean", justify="right")
    for kind in dict.fromkeys(cell.kind for cell in found.cells):
        rates = [cell.accuracy for cell in found.cells if cell.kind == kind]
        mean = sum(rate.value for rate in rates) / len(rates)
        table.add_row(one_line(kind), *map(_interval, rates), f"{mean:.1%}")
    wide_console().print(table)
    lines = [
        ("clean", summary.clean_accuracy),
        ("right under all of them", summary.robust_accuracy),
    ]
    for name, rate in lines:
        if rate is not None:
            print(f"{name}: {_interval(rate)}, {rate.k} of {rate.n}")
    if found.mean_accuracy is not None:
        print(f"mean over kinds and severities: {found.mean_accuracy:.2%}")
        print(f"worst kind: {one_line(str(found.worst_kind))}, mean {found.worst_accuracy:.2%}")


def print_transformations(summary: Summary, found: TransformationSummary) -> None:
    """Print what each family breaks, and how much of it that takes."""
    table = Table()
    for name in ("transformation", "breaks", "95% interval", "samples", "weakest for"):
        table.add_column(name, justify="left" if "9" in name or "form" in name else "right")
    table.add_column("median strength", justify="right")
    table.add_column("of")
    for family in found.families:
        rate, median = family.broken, family.median_strength
        table.add_row(
            one_line(family.name),
            *(
                ("-", "", "none tried", "-")
                if rate is None
                else (
                    f"{rate.value:.2%}",
                    f"[{rate.lower:.2%}, {rate.upper:.2%}]",
                    f"{rate.k} of {rate.n}",
                    str(family.weakest),
                )
            ),
            "-" if median is None else f"{median:.4g}",
            one_line(family.unit),
        )
    wide_console().print(table)
    _print_rates(summary, "right under all that was tried")


def _print_rates(summary: Summary, whole: str) -> None:
    for name, rate in (("clean", summary.clean_accuracy), (whole, summary.robust_accuracy)):
        if rate is not None:
            print(f"{name}: {_interval(rate)}, {rate.k} of {rate.n}")


def _interval(rate: Rate) -> str:
    return f"{rate.value:.1%} [{100 * rate.lower:.1f}, {100 * rate.upper:.1f}]"
