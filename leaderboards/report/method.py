"""How it was found: steps, budgets, randomness, and what the proofs assume."""

from __future__ import annotations

from collections.abc import Iterator

from leaderboards.canonical import canonical_json
from leaderboards.errors import one_line
from leaderboards.manifest import StepInfo
from leaderboards.report.blocks import Block, Points, Table, Text
from leaderboards.report.subject import Subject
from leaderboards.report.words import plural

_METHODS = {
    "ibp": "interval bounds, layer by layer",
    "crown-ibp": "linear bounds of the margin over interval bounds of the layers",
    "crown": "linear bounds of every layer, by backward substitution",
    "alpha-crown": "the same with slopes that are optimised",
    "complete": "branch and bound over unstable neurons with optimised linear bounds",
    "interval": "interval bounds of the explanation's graph",
    "crown-interval": "linear bounds of the activations, intervals through the backward pass",
    "linear": "linear bounds of the explanation's graph",
}
_LONGEST = 240


def method(subject: Subject) -> Iterator[Block]:
    """Yield steps and settings."""
    rows = [("clean", "clean", "", "the model's prediction on the sample as it is")]
    for step in subject.manifest.protocol.steps:
        rows.append((step.name, step.kind, f"{step.version}", _settings(step)))
    yield Text(
        "The steps ran in this order, each on the samples that those before it left open, unless "
        "its settings say otherwise. The first step that settles a sample gives its verdict."
    )
    yield Table(("step", "kind", "version", "what it does, and its settings"), tuple(rows), left=4)
    told = {str(step.parameters.get("method")) for step in subject.proofs}
    named = [f"{name}: {_METHODS[name]}" for name in _METHODS if name in told]
    if named:
        yield Text("Verifiers:")
        yield Points(tuple(named))
    yield Text("Budgets, randomness and order:")
    yield Points(tuple(_order(subject)))


def _settings(step: StepInfo) -> str:
    told = ", ".join(
        f"{key} {value if isinstance(value, str) else canonical_json(value).decode()}"
        for key, value in step.parameters.items()
        if value is not None
    )
    return one_line(told or "no settings", _LONGEST)


def _order(subject: Subject) -> Iterator[str]:
    manifest = subject.manifest
    timed = [s.name for s in manifest.protocol.steps if s.parameters.get("seconds") is not None]
    if timed:
        names = ", ".join(timed)
        yield f"These steps had a budget in seconds, which no other machine repeats: {names}."
    else:
        yield (
            "Budgets are counted in work (gradient steps, passes, subproblems), not in time, so "
            "that the run can be repeated bit for bit on a machine of the same kind."
        )
    yield (
        f"All randomness follows from the seed {manifest.seed}, the step, the sample's id and the "
        "restart: it depends on neither batch size nor order."
    )
    tiles = ", ".join(map(str, manifest.tiles))
    yield f"Passes were made in tiles of {tiles} samples, measured to give the same bits."
    yield (
        f"It ran on {one_line(manifest.device, 40)} ({one_line(manifest.device_name, 80)}, "
        f"{plural(manifest.threads, 'thread')}, {one_line(manifest.platform, 80)}) in "
        f"{one_line(manifest.dtype, 40)}, with robustbench-c "
        f"{one_line(manifest.tool_version, 40)}, "
        + ", ".join(
            f"{one_line(k, 40)} {one_line(v, 40)}" for k, v in sorted(manifest.versions.items())
        )
        + "."
    )


def assumptions(subject: Subject) -> Iterator[Block]:
    """Yield what the verdicts rest on."""
    explained = subject.manifest.protocol.explanation is not None
    bent = (
        "bent: a legal point (and, where weights may move, a legal model) was found where the "
        "class is still predicted and the explanation is further from the clean one than the "
        "threshold, in float32 and in float64. It was checked again by code that is not the "
        "attack's."
    )
    broken = (
        "broken: the margin of the example is not positive in the float32 evaluation of the model "
        "and, where the model has such a form, in float64 as well. The example was projected, "
        "clipped to the input box and checked again by code that is not the attack's; its distance "
        "was measured in float64."
    )
    changed = (
        "broken: the sample is right as it is, and misclassified once it is changed as the step "
        "and its settings say."
    )
    points = [changed if subject.changed else bent if explained else broken]
    if subject.smoothed:
        points += [
            "certified: with the probability that the protocol names (1 - alpha, for each sample), "
            "the smoothed classifier, a majority vote of the model under Gaussian noise, keeps its "
            "prediction within the radius. It is another function than the model itself, and what "
            "is evaluated in use has to be the same vote.",
        ]
    elif subject.proofs and not explained:
        points += [
            "certified: a proven lower bound of the margin, over everything the attacker may do, "
            "is positive after the rounding of the bound's own arithmetic and an a-priori bound "
            "of the error of the model's float32 evaluation are taken off. What is proved is "
            "about the function over the real numbers and, by that error bound, about its "
            "float32 evaluation in any order of summation.",
            "The error bound assumes IEEE 754 arithmetic, rounding to nearest, and that exp, "
            "tanh, erf and the like err by few units in the last place. Reduced precision (TF32, "
            "bfloat16, fused approximations) was off, and has to be off in use for the statement "
            "to hold.",
            "Proved up to rounding only counts as undecided (rounding), never as certified; ties "
            "and NaN are never certified.",
        ]
    elif subject.proofs:
        points += [
            "certified: the box that holds the explanation of every legal input (and model, "
            "where weights may move) is within the threshold. Rounding is charged to every "
            "bound, masks of ReLU included.",
            "Where an activation has a kink, its derivative there is taken to be any value between "
            "those of both sides.",
        ]
    points += [
        "error: a step raised an exception. It never counts as success: an attack that fails does "
        "not make a sample robust, and a proof that fails does not certify it.",
        "A sample that is both certified and broken would have stopped the run: none is in it.",
    ]
    yield Points(tuple(points))
