"""A run about explanations as tables for people."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from leaderboards.errors import one_line
from leaderboards.explained import ExplanationSummary, MonotoneShare, Spread
from leaderboards.manifest import ExplanationInfo, Protocol
from leaderboards.rates import Rate
from leaderboards.summary import Summary
from robustbench_c.cli.console import wide_console

_METRICS = {
    "deviation_linf": "deviation, Linf (at most)",
    "deviation_mean": "deviation, mean (at most)",
    "deviation_l1": "deviation, L1 (at most)",
    "deviation_l2": "deviation, L2 (at most)",
    "width_max": "box width, largest",
    "width_mean": "box width, mean",
    "cosine": "cosine similarity (at least)",
    "top_k": "top {k} that stay (at least)",
    "sup_norm": "largest entry (at most)",
    "lipschitz": "L1 norm (at most)",
    "signs": "signs that cannot change (share)",
    "local_lipschitz_upper": "local Lipschitz constant, largest of a logit (at most)",
    "local_lipschitz_lower": "local Lipschitz constant, largest of a logit (at least)",
}


def headline(protocol: Protocol, explanation: ExplanationInfo) -> str:
    """What is explained, and when it counts as bent."""
    criterion = explanation.criterion
    of = f"{explanation.kind} of the {explanation.of}"
    steps = f", {explanation.steps} steps" if explanation.steps > 1 else ""
    weights = ""
    if explanation.gamma:
        share = " of each" if explanation.gamma_relative else ""
        weights = f", weights +-{explanation.gamma:g}{share}"
    if criterion.measure == "cosine":
        told = f"cosine similarity below {1 - criterion.threshold:g}"
    else:
        measure = criterion.measure.replace("-k", f"-{criterion.k}")
        relative = " of its own" if criterion.relative else ""
        ranked = " by value" if criterion.signed else ""
        told = f"{measure}{ranked} beyond {criterion.threshold:g}{relative}"
    threat = protocol.threat
    unit = "" if threat.eps_unit == "input" else " of each feature's range"
    return f"{of}{steps}, {threat.norm} eps {threat.eps:g}{unit}{weights}; bent: {told}"


def print_explained(protocol: Protocol, summary: Summary) -> None:
    """Print what a run about explanations found."""
    from robustbench_c.cli.tables import percent

    info, found = protocol.explanation, summary.explanation
    if info is None or found is None:
        return
    print(one_line(headline(protocol, info)))
    table = Table()
    for name, justify in (("", "left"), ("share", "right"), ("95% interval", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("samples", justify="right")
    attacks = [step.name for step in protocol.steps if step.kind == "attack"]
    proofs = [step.name for step in protocol.steps if step.kind == "certificate"]
    table.add_row("clean accuracy", *percent(summary.clean_accuracy))
    table.add_section()
    if attacks:
        table.add_row(one_line(f"bent ({', '.join(attacks)})"), *percent(found.bent))
    if proofs:
        table.add_row(one_line(f"certified ({', '.join(proofs)})"), *percent(found.certified))
    table.add_row("undecided", *percent(found.undecided))
    if summary.counts.error and summary.complete:
        table.add_row("error", *percent(Rate.of(summary.counts.error, summary.samples)))
    wide_console().print(table)
    wide_console().print(_bounds(found))
    if found.metrics:
        wide_console().print(_metrics(found, info.k))
    if found.monotone:
        wide_console().print(_monotone(found.monotone))


def _bounds(found: ExplanationSummary) -> Table:
    """From below and from above."""
    table = Table("distance", *("10%", "25%", "median", "75%", "90%"), "samples")
    for name, spread in (
        ("attack, a lower bound", found.attack),
        ("certificate, an upper bound", found.certificate),
        ("certificate / attack", found.ratio),
    ):
        table.add_row(name, *_quantiles(spread))
    return table


def _quantiles(spread: Spread | None) -> tuple[str, ...]:
    if spread is None:
        return ("-",) * 5 + ("0",)
    values = (spread.q10, spread.q25, spread.median, spread.q75, spread.q90)
    return (*(f"{value:.4g}" for value in values), str(spread.samples))


def _monotone(shares: tuple[MonotoneShare, ...]) -> Table:
    from robustbench_c.cli.tables import percent

    table = Table("the score, by feature", "increasing", "decreasing", "samples")
    for share in shares:
        up, down = percent(share.increasing), percent(share.decreasing)
        table.add_row(Text(one_line(share.name)), up[0], down[0], up[-1])
    return table


def _metrics(found: ExplanationSummary, k: int) -> Table:
    table = Table("certified over the samples", "median", box=None)
    for name, told in _METRICS.items():
        if name in found.metrics:
            table.add_row(told.format(k=k), f"{found.metrics[name]:.4g}")
    return table
