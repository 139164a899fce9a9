"""`robust-eval` on questions of others: a VNN-LIB property, or a list of instances."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from robustbench_c.errors import CheckFailedError, UsageError

if TYPE_CHECKING:
    from robustbench_c.foreign.answers import Answer
    from robustbench_c.foreign.instances import Instance

_APPLY = {
    "model", "property_", "instances", "reference", "timeout",
    "out", "seed", "overwrite", "as_json",
}  # fmt: skip


def answer(
    context: typer.Context,
    model: str | None,
    property_: Path | None,
    instances: Path | None,
    reference: Path | None,
    timeout: float | None,
    out: Path,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Answer one property or a list of instances, print verdicts, and keep records.

    Raises:
        CheckFailedError: A verdict is the opposite of the reference's.
        UsageError: Options that do not go together.
    """
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and name not in _APPLY:
            raise UsageError(f"--{name.strip('_').replace('_', '-')} does not apply to properties")
    if timeout is not None and not 0 < timeout < float("inf"):
        raise UsageError(f"--timeout {timeout:g} is not a number of seconds above 0")
    if instances is not None:
        if model is not None or property_ is not None:
            raise UsageError("--instances names networks and properties: leave out the others")
        _answer_list(instances, reference, timeout, out, seed, overwrite, as_json)
        return
    if model is None or property_ is None:
        raise UsageError("give a --model (.onnx) and a --property (.vnnlib)")
    if reference is not None:
        raise UsageError("--reference belongs to --instances")
    if not model.endswith((".onnx", ".onnx.gz")) and not Path(model).exists():
        raise UsageError(f"--model {model}: a --property is asked of an .onnx network, by its path")
    _answer_one(Path(model), property_, timeout, out, seed, overwrite, as_json)


def _answer_one(
    model: Path,
    asked: Path,
    timeout: float | None,
    out: Path,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    from robustbench_c.foreign.answers import answer_one
    from robustbench_c.foreign.instances import Instance

    instance = Instance(model, asked, timeout or float("inf"))
    found, path, before = answer_one(
        instance, out / "properties", timeout=timeout, seed=seed, again=overwrite, strict=True
    )
    if as_json:
        print(json.dumps(asdict(found), indent=1))
    else:
        print(f"{found.verdict} by {found.method}, {found.seconds:.2f} s")
        if found.detail:
            print(found.detail)
        if found.verdict == "sat":
            print(f"counterexample: {path.with_suffix('.counterexample')}")
        if before:
            print("from the record that was there (--overwrite asks again)")
        print(f"record: {path}")


def _answer_list(
    instances: Path,
    reference: Path | None,
    timeout: float | None,
    out: Path,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    from rich.console import Console

    from leaderboards.files import atomic_write_bytes
    from robustbench_c.cli.run_progress import RunProgress
    from robustbench_c.foreign.answers import answer_all, contradicts
    from robustbench_c.foreign.instances import read_instances, read_reference

    asked = read_instances(instances)
    known = {} if reference is None else read_reference(reference)
    folder = out / "properties" / (instances.resolve().parent.name or "instances")
    with RunProgress(Console(stderr=True), "settled") as bar:
        answers = answer_all(
            asked,
            folder,
            timeout=timeout,
            seed=seed,
            again=overwrite,
            progress=lambda done, total, settled: bar("properties", done, total, settled),
        )
    others = [known.get((each.onnx, each.vnnlib)) for each in asked]
    rows = [
        {**asdict(mine), "reference": other} for mine, other in zip(answers, others, strict=True)
    ]
    atomic_write_bytes(folder / "results.csv", _csv(rows).encode())
    atomic_write_bytes(folder / "results.json", (json.dumps(rows, indent=1) + "\n").encode())
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        _show(asked, answers, others)
        print(f"records: {folder}")
    wrong = [
        f"{mine.network} {mine.property}: {mine.verdict}, but the reference says {other}"
        for mine, other in zip(answers, others, strict=True)
        if contradicts(mine.verdict, other)
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise CheckFailedError(f"contradicts the reference: {wrong[0]}{more}")


def _show(
    asked: list[Instance] | tuple[Instance, ...], answers: list[Answer], others: list[str | None]
) -> None:
    from collections import Counter

    from rich.table import Table

    from robustbench_c.cli.console import wide_console
    from robustbench_c.foreign.answers import contradicts, settled

    table = Table("network", "property", "verdict", "reference", "by", box=None)
    for name in ("seconds", "limit"):
        table.add_column(name, justify="right")
    table.add_column("")
    for instance, mine, other in zip(asked, answers, others, strict=True):
        note = "CONTRADICTION" if contradicts(mine.verdict, other) else mine.detail
        limit = "-" if mine.timeout is None else f"{mine.timeout:g}"
        table.add_row(
            instance.onnx.name,
            instance.vnnlib.name,
            mine.verdict,
            other or "-",
            mine.method,
            f"{mine.seconds:.2f}",
            limit,
            note,
        )
    wide_console().print(table)
    counts = Counter(mine.verdict for mine in answers)
    print("verdicts: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    if any(other is not None for other in others):
        wrong = sum(contradicts(m.verdict, o) for m, o in zip(answers, others, strict=True))
        agree = sum(m.verdict == o for m, o in zip(answers, others, strict=True) if settled(m))
        print(f"reference: {agree} the same, {wrong} contradictions")


def _csv(rows: list[dict[str, object]]) -> str:
    columns = ("network", "property", "verdict", "reference", "method", "seconds", "timeout",
               "boxes", "detail")  # fmt: skip
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
