"""What attacks were run, in a few words each, and what they cost."""

from __future__ import annotations

from rich.table import Table

from leaderboards.errors import one_line
from leaderboards.manifest import Parameter, StepInfo
from leaderboards.summary import Summary
from robustbench_c.cli.console import wide_console

_LENGTHS = ("steps", "queries", "levels")
_OWN = (
    "attack",
    "knowledge",
    "name",
    "loss",
    "goal",
    "random_start",
    *_LENGTHS,
    "max_queries",
    "seconds",
)
"""Settings that are shown in another way, or go without saying."""
_USUAL: dict[str, tuple[Parameter, ...]] = {
    "restarts": (1,),
    "targets": (0,),
    "goal": ("untargeted",),
    "rounds": (3,),
    "factor": (3,),
}
"""Values that go without saying, by setting; None always does."""
_LIMITS = {"max_queries": "at most {} queries", "seconds": "at most {} s"}


def attack_words(step: StepInfo) -> str:
    """An attack with what its strength hangs on, such as "pgd-40x5, step 0.025, ce"."""
    given = {name.removeprefix("option."): value for name, value in step.parameters.items()}
    length = next((f"-{given[name]}" for name in _LENGTHS if name in given), "")
    runs = f"x{given.get('restarts')}" if "step_size" in given else ""
    words = [f"{step.name}{length}{runs}"]
    for name, value in given.items():
        silent = value is None or value in _USUAL.get(name, ()) or (name == "restarts" and runs)
        if name not in _OWN and not silent:
            shown = "step" if name == "step_size" else name.replace("_", " ")
            words.append(f"{shown} {_text(value)}")
    words += [str(given[name]) for name in ("loss", "goal") if _told(given, name)]
    return one_line(", ".join(words))


def suite_words(steps: list[StepInfo]) -> str:
    """All attacks of a run, and the limits that they share."""
    limits = [
        words.format(_text(value))
        for name, words in _LIMITS.items()
        if (value := steps[0].parameters.get(name)) is not None
    ]
    return "; ".join([" + ".join(map(attack_words, steps)), *limits])


def _told(given: dict[str, Parameter], name: str) -> bool:
    return name in given and given[name] not in _USUAL.get(name, ())


def _text(value: Parameter) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_costs(summary: Summary) -> None:
    """Print what each attack knows of the model, what it did, and what it cost."""
    attacks = [step for step in summary.steps if step.kind == "attack"]
    if not attacks:
        return
    table = Table("attack", "knows")
    for name in ("tried", "broken", "errors", "forward", "backward", "queries", "s"):
        table.add_column(name, justify="right")
    for step in attacks:
        passes = (step.forwards, step.backwards, 0 if step.queries is None else step.queries)
        table.add_row(
            one_line(step.name),
            step.knowledge or "",
            *(str(number) for number in (step.samples - step.untried, step.broken, step.errors)),
            *(f"{number:,}" for number in passes),
            f"{step.seconds:.1f}",
        )
    wide_console().print(table)
