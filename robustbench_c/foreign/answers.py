"""Answers to properties as files: one JSON record a question, and a counterexample beside it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from leaderboards.files import atomic_write_bytes, make_folder
from robustbench_c.errors import DataError, HarnessError, ModelError
from robustbench_c.foreign.instances import Instance
from robustbench_c.foreign.onnx_model import load_onnx
from robustbench_c.foreign.reading import refuse_odd
from robustbench_c.foreign.verification import Verdict, Verification, verify
from robustbench_c.foreign.vnnlib import load_vnnlib

_SCHEMA = 1


@dataclass(frozen=True)
class Answer:
    """One question and its answer, as recorded.

    Attributes:
        network: Name of the network's file.
        property: Name of the property's file.
        network_sha256: Hash of the file.
        property_sha256: Likewise.
        timeout: Seconds that were granted, or None.
        seed: Of the search for counterexamples.
        verdict: `sat`, `unsat`, `unknown`, `timeout` or `error`.
        method: What settled it, or what was last at work.
        seconds: Time it took, files not read.
        boxes: Boxes or subproblems that were bounded.
        detail: One line, or nothing.
        x: The counterexample's input, for `sat`.
        y: The network's output for it.
        schema: Version of this form.
    """

    network: str
    property: str
    network_sha256: str
    property_sha256: str
    timeout: float | None
    seed: int
    verdict: str
    method: str
    seconds: float
    boxes: int
    detail: str
    x: Sequence[float] | None = None
    y: Sequence[float] | None = None
    schema: int = _SCHEMA


def settled(answer: Answer) -> bool:
    """Whether it is `sat` or `unsat`."""
    return answer.verdict in (Verdict.SAT, Verdict.UNSAT)


def contradicts(verdict: str, reference: str | None) -> bool:
    """Whether one says `sat` and the other `unsat`."""
    return {verdict, reference} == {"sat", "unsat"}


def counterexample(answer: Answer) -> str:
    """A counterexample as the verification competition writes it: `((X_0 v) ... (Y_0 v))`."""
    named = [
        f"({letter}_{index} {value!r})"
        for letter, values in (("X", answer.x or ()), ("Y", answer.y or ()))
        for index, value in enumerate(values)
    ]
    return "(" + "\n ".join(named) + ")\n"


def answer_one(
    instance: Instance,
    folder: Path,
    *,
    timeout: float | None,
    seed: int,
    again: bool = False,
    strict: bool = False,
) -> tuple[Answer, Path, bool]:
    """Answer one question, or take the answer from its record.

    A record counts if files, timeout and seed are the same, and it is no `error`.

    Args:
        instance: Network and property.
        folder: Where records lie.
        timeout: Seconds, or None.
        seed: Of the search for counterexamples.
        again: Answer anew although there is a record.
        strict: Raise, and record nothing, instead of the verdict `error`.

    Returns:
        The answer, its record, and whether it was there before.

    Raises:
        DataError, ModelError: If `strict`.
        RecordError: The record cannot be written.
    """
    hashes = _sha256(instance.onnx, ModelError), _sha256(instance.vnnlib, DataError)
    key = json.dumps([instance.onnx.name, instance.vnnlib.name, *hashes, timeout, seed])
    name = f"{_stem(instance.onnx)}--{_stem(instance.vnnlib)}"[:100]
    path = folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}.json"
    if not again and (before := _recorded(path)) is not None and before.verdict != Verdict.ERROR:
        return before, path, True
    try:
        model, asked = load_onnx(instance.onnx), load_vnnlib(instance.vnnlib)
        found = verify(model, asked, timeout=timeout, seed=seed)
    except HarnessError as error:
        if strict:
            raise
        found = Verification(Verdict.ERROR, "reading", 0.0, detail=" ".join(str(error).split()))
    if strict and found.verdict == Verdict.ERROR:
        raise ModelError(f"{instance.onnx}: {found.detail}")
    answer = Answer(
        instance.onnx.name,
        instance.vnnlib.name,
        *hashes,
        timeout,
        seed,
        str(found.verdict),
        found.method,
        found.seconds,
        found.boxes,
        found.detail,
        None if found.x is None else found.x.tolist(),
        None if found.y is None else found.y.tolist(),
    )
    make_folder(folder)
    if answer.verdict == Verdict.SAT:
        text = counterexample(answer)
        atomic_write_bytes(path.with_suffix(".counterexample"), text.encode())
    atomic_write_bytes(path, (json.dumps(asdict(answer), indent=1) + "\n").encode())
    return answer, path, False


def answer_all(
    instances: Sequence[Instance],
    folder: Path,
    *,
    timeout: float | None,
    seed: int,
    again: bool,
    progress: Callable[[int, int, int], None],
) -> list[Answer]:
    """Answer a list of questions, in its order; what is recorded is not asked again.

    Args:
        instances: The questions.
        folder: Where records lie.
        timeout: Seconds of each; None for those of the instances.
        seed: Of the search for counterexamples.
        again: Answer anew although there are records.
        progress: Is told how many are done, of how many, and how many are settled.
    """
    answers: list[Answer] = []
    progress(0, len(instances), 0)
    for instance in instances:
        granted = instance.timeout if timeout is None else timeout
        answer, _, _ = answer_one(instance, folder, timeout=granted, seed=seed, again=again)
        answers.append(answer)
        progress(len(answers), len(instances), sum(map(settled, answers)))
    return answers


def _recorded(path: Path) -> Answer | None:
    """The answer in a record; None where there is none that can be read."""
    try:
        content: Any = json.loads(path.read_bytes())
        answer = Answer(**content) if isinstance(content, Mapping) else None
    except (OSError, ValueError, TypeError):
        return None
    if answer is None or answer.schema != _SCHEMA or answer.verdict not in set(Verdict):
        return None
    return answer if math.isfinite(answer.seconds) else None


def _sha256(path: Path, kind: type[HarnessError]) -> str:
    refuse_odd(path, kind)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise kind(f"{path}: cannot be read: {error.strerror or error}") from error


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]
