"""A run as a table for people."""

from __future__ import annotations

import math
from collections import Counter

from rich.table import Table

from leaderboards.errors import one_line
from leaderboards.manifest import Manifest, ModelInfo, Protocol, StepInfo
from leaderboards.rates import Rate
from leaderboards.report.words import duration
from leaderboards.store import RunStore
from leaderboards.summary import Summary
from leaderboards.verdicts import CLEAN_STEP, Verdict
from leaderboards.watching import most_at_once, wall_seconds
from leaderboards.worklog import read_logs
from robustbench_c.cli.attack_tables import print_costs, suite_words
from robustbench_c.cli.changed_tables import print_corruptions, print_transformations
from robustbench_c.cli.console import few, wide_console
from robustbench_c.cli.explained_tables import print_explained
from robustbench_c.cli.flags import diagnosed_lines, marked
from robustbench_c.cli.minimal import distance_table, gap_lines
from robustbench_c.cli.proof_tables import print_proofs, reasons_line

_FEW = 2
"""Attacks whose settings the table has room for."""
_MANY = 6
"""Steps of a kind whose times are shown one by one, at most."""


def percent(rate: Rate | None) -> tuple[str, str, str]:
    """A rate as the cells of a table: share, interval, counts."""
    if rate is None:
        return "-", "", ""
    return (
        f"{rate.value:.2%}",
        f"[{rate.lower:.2%}, {rate.upper:.2%}]",
        f"{rate.k} of {rate.n}",
    )


def print_run(store: RunStore, summary: Summary) -> None:
    """Print the table of a run, its verdicts, its cost, and what was unusual."""
    model, data, threat = store.manifest.model, store.manifest.data, store.manifest.protocol.threat
    unit = "" if threat.eps_unit == "input" else " of each feature's range"
    protocol = store.manifest.protocol
    attacker = f"{threat.norm} eps {threat.eps:g}{unit}"
    if protocol.corruption is not None or protocol.transformation is not None:
        attacker = "corrupted" if protocol.corruption else "transformed"
    print(one_line(f"{model.name} on {data.name}, {attacker}"))
    if summary.corruption is not None:
        print_corruptions(summary, summary.corruption)
    elif summary.transformation is not None:
        print_transformations(summary, summary.transformation)
    elif summary.explanation is not None:
        print_explained(store.manifest.protocol, summary)
    else:
        wide_console().print(_table(store.manifest, summary))
        print_costs(summary)
        print_proofs(summary)
        if summary.distance is not None:
            wide_console().print(distance_table(summary.distance))
    lines = (
        *gap_lines(summary.distance),
        *_suite_lines(store.manifest.protocol),
        _verdict_line(summary),
        *_draws_lines(summary),
        *_detail_lines(store),
        *_size_lines(model),
        *diagnosed_lines(store, summary),
    )
    for line in (*lines, _cost_line(summary), *_time_lines(store, summary)):
        print(line)


def _table(manifest: Manifest, summary: Summary) -> Table:
    """Rates with their intervals."""
    table = Table()
    for name, justify in (("", "left"), ("accuracy", "right"), ("95% interval", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("samples", justify="right")
    table.add_row("clean", *percent(summary.clean_accuracy))
    attacks = [step for step in manifest.protocol.steps if step.kind == "attack"]
    proofs = [step.name for step in manifest.protocol.steps if step.kind == "certificate"]
    if attacks or proofs:
        told = f"robust ({_attack_words(attacks)})" if attacks else "robust (no attack)"
        share, *rest = percent(summary.robust_accuracy)
        table.add_row(told, marked(share, summary), *rest)
    if summary.certified_accuracy is not None:
        table.add_row(
            one_line(f"certified ({', '.join(proofs)})"), *percent(summary.certified_accuracy)
        )
    return table


def _attack_words(attacks: list[StepInfo]) -> str:
    """Attacks with their settings; of a suite's many the names, the settings have a line then."""
    if len(attacks) <= _FEW:
        return suite_words(attacks)
    return one_line(", ".join(step.name for step in attacks))


def _suite_lines(protocol: Protocol) -> list[str]:
    """The settings of a suite's attacks, where the table has no room for them."""
    others = (protocol.corruption, protocol.transformation, protocol.explanation)
    attacks = [step for step in protocol.steps if step.kind == "attack"]
    if len(attacks) <= _FEW or any(other is not None for other in others):
        return []
    return [one_line(f"attacks: {suite_words(attacks)}")]


def _size_lines(model: ModelInfo) -> list[str]:
    """What the model takes, and how much of it is not 0 where that is less."""
    size = model.size
    if size is None:
        return []
    lines = [
        f"model: {model.parameters:,} parameters, {_short(2 * size.macs, 'FLOP')} per sample, "
        f"{_short(size.dense_bytes, 'B')}"
    ]
    if size.nonzero_weights < size.weights:
        zeros = (size.weights - size.nonzero_weights) / size.weights
        lines.append(
            f"sparsity: {zeros:.2%} of {size.weights:,} weights are 0; "
            f"{size.nonzero_parameters:,} parameters are not, with "
            f"{_short(2 * size.nonzero_macs, 'FLOP')} per sample, and "
            f"{_short(size.packed_bytes, 'B')} as CSR"
        )
    return lines


def _draws_lines(summary: Summary) -> list[str]:
    """What holds on other draws of a random model."""
    found = summary.other_draws
    if found is None or found.clean_accuracy is None:
        return []
    share, interval, counts = percent(found.clean_accuracy)
    lines = [f"on {found.count} other draws: clean accuracy {share} {interval}, {counts}"]
    if found.held is not None:
        share, interval, _ = percent(found.held)
        lines.append(
            f"on {found.count} other draws: {found.held.k} of {found.held.n} adversarial examples "
            f"hold ({share} {interval})"
        )
    return lines


def _short(number: int, unit: str) -> str:
    """A number with three digits and its unit: "4.93 MFLOP"."""
    value, prefix = float(number), ""
    for prefix in ("", "k", "M", "G", "T"):
        if value < 999.5 or prefix == "T":
            break
        value /= 1000
    return f"{value:.3g} {prefix}{unit}"


def _cost_line(summary: Summary) -> str:
    """What the run cost, in one line."""
    cost = summary.cost
    if cost.forwards_per_sample is None:
        return "no sample was run"
    return (
        f"cost: {cost.forwards_per_sample:.1f} forward and {cost.backwards_per_sample:.1f} "
        f"backward passes per sample, {cost.seconds:.1f} s in all"
    )


def _time_lines(store: RunStore, summary: Summary) -> list[str]:
    """What each phase took, summed over the workers, and for how long any of them was at work."""
    spent = {step.name: step.seconds for step in summary.steps if step.samples}
    if not spent:
        return []
    for kind in ("attack", "certificate"):
        names = [step.name for step in summary.steps if step.kind == kind and step.samples]
        if len(names) > _MANY:
            spent[f"{len(names)} {kind}s"] = math.fsum(spent.pop(name) for name in names)
    if summary.cost.diagnostics_seconds is not None:
        spent["diagnostics"] = summary.cost.diagnostics_seconds
    line = ", ".join(f"{one_line(name)} {duration(seconds)}" for name, seconds in spent.items())
    logs = read_logs(store.folder)
    if (wall := wall_seconds(logs)) is not None:
        n, starts = most_at_once(logs), len(logs.workers)
        least = "" if all(log.last.event == "ended" for log in logs.workers) else "at least "
        line += f"; wall time {least}{duration(wall)}, {n} {'worker' if n == 1 else 'workers'}"
        line += f" at once, {starts} starts" if starts > n else ""
    return [f"time: {line}"]


def _verdict_line(summary: Summary) -> str:
    """The number of samples with each verdict, in one line."""
    counts = {k: v for k, v in summary.counts.model_dump().items() if v}
    shown = {name: f"{count} {name.replace('_', ' ')}" for name, count in counts.items()}
    if "undecided" in shown and (reasons := reasons_line(summary.undecided_by)):
        shown["undecided"] += f" ({reasons})"
    return "verdicts: " + ", ".join(shown.values())


def _detail_lines(store: RunStore) -> list[str]:
    """What the rows say of samples that ended in an unusual way, with counts.

    Of a certificate only what went wrong: why it left samples open is in its table.
    """
    frames = {step: store.read_step(step) for step in store.steps if step != CLEAN_STEP}
    told = {
        (detail, sample)
        for step, frame in frames.items()
        for detail, sample in frame.loc[
            (store.kind(step) == "attack") | frame["verdict"].isin([Verdict.ERROR]),
            ["detail", "sample_id"],
        ]
        .dropna()
        .itertuples(index=False)
    }
    counts = Counter(detail for detail, _ in told)
    shown, more = few(sorted(counts.items(), key=lambda told: (-told[1], told[0])), "such words")
    return [*(one_line(f"{count} samples: {detail}") for detail, count in shown), *more]
