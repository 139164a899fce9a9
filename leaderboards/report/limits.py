"""What is not claimed, and how anybody can check or repeat the run."""

from __future__ import annotations

from collections.abc import Iterator

from leaderboards.report.blocks import Block, Code, Facts, Points, Table, Text
from leaderboards.report.subject import Subject
from leaderboards.reproduction import reproduction


def limits(subject: Subject) -> Iterator[Block]:
    """Yield what is not claimed."""
    points = [
        "Other attackers. The verdicts are about the threat model above and no other: not about "
        "larger changes, other norms, changes that people would not notice but the norm does, or "
        "an attacker who changes the model, the training data or the preprocessing before the "
        "input box.",
        "Sampling. The samples are a part of one data set. The intervals are about samples drawn "
        "as these were; they say nothing where the inputs in use are drawn otherwise (another "
        "camera, another population, another time).",
        "Real numbers and floats. Proofs charge rounding by an a-priori bound and hold for the "
        "float32 evaluation under the assumptions above. Another number format, quantisation, a "
        "compiler that reorders or approximates beyond IEEE 754, or hardware that errs is not "
        "covered.",
        "Machines. Attacks on another kind of CPU, GPU or with another version of torch can "
        "differ in their last bits, and so in which borderline samples they break. Proofs hold "
        "as they are.",
    ]
    if subject.attacks:
        points.append(
            "Attacks. A sample that no attack broke may still be broken by another one: the "
            "empirical robust accuracy is an upper bound of the truth, at the budget above."
        )
    if subject.proofs:
        points.append(
            "Proofs. An undecided sample may be robust: the certified accuracy is a lower bound "
            "of the truth, at the budget above."
        )
        points.append(
            "Code. The proofs are made by a program, not by a proof assistant. It is tested "
            "against attacks, exact references and planted bugs, but it was not itself verified."
        )
    points.append(
        "The record. Whoever wrote it could have left samples open, or chosen samples and model; "
        "hashes say what was tested, not that it is what is used. The checks below show that "
        "what is claimed as proved is so, and what is claimed as broken where the examples are "
        "stored."
    )
    yield Points(tuple(points))


def repeat(subject: Subject) -> Iterator[Block]:
    """Yield commands and hashes."""
    manifest, summary = subject.manifest, subject.summary
    how = reproduction(manifest)
    yield Text(
        "To check that the record, whose folder is RUN, is whole and agrees with itself (no model "
        "needed):"
    )
    yield Code("robust-leaderboard validate RUN")
    yield Text(
        "To replay every stored adversarial example on the model and to prove every certificate "
        "again:"
    )
    yield Code("robust-runs verify RUN --prove")
    told = "" if how.whole else ", as far as the record says it (compare the hash of the protocol)"
    yield Text(f"To do the run again{told}:")
    yield Code(how.command)
    yield Text(
        "A run of the same identity has to give the same content hashes, whatever its batch size, "
        "order or interruptions:"
    )
    yield Facts(
        (
            ("Identity", summary.identity),
            ("SHA-256 of the protocol", manifest.protocol_sha256),
            ("SHA-256 of the weights", manifest.model.sha256),
            ("SHA-256 of the data", manifest.data.sha256),
        )
    )
    yield Table(
        ("step", "SHA-256 of its rows, time left out"),
        tuple((step.name, step.content_sha256) for step in summary.steps),
        left=2,
    )
