"""Makes docs/sparse-table.md: sparse training methods, the robustness they keep, and their cost.

    make sparse                                      all of it (hours on two cores)
    python scripts/sparse_table.py --jobs 2          trainings and evaluations side by side
    python scripts/sparse_table.py sparsevlr-99      these rows alone (and what they start from)
    python scripts/sparse_table.py --table           what is done so far, without any work

Every row is a shipped recipe with options, trained by `robust-train` into models/sparse/<row> and
measured by `robust-eval` on all of Fashion-MNIST's test split into runs/sparse. Both can be
stopped: the next call goes on where it was. The table is read off cards and records, never typed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from threading import Lock
from typing import Any

from sparse_rows import CNN7, MODELS, ROWS, Row

from attacks.threat import ThreatModel
from certify.sparse.accounting import count
from certify.sparse.stability import unstable_relus
from robustbench_c import data, zoo
from robustbench_c.errors import HarnessError, RunError, did_you_mean
from robustbench_c.files import write_atomically
from robustbench_c.training.recipe import Recipe, load_recipe, override

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "sparse-table.md"
KEPT = ROOT / "docs" / "sparse-table.json"
EPS, UNSTABLE_ON = 0.1, 1000
EVALUATION = (
    "--data fashion-mnist --norm linf --eps 0.1 --attack pgd --steps 20 --restarts 1 "
    "--certify crown --out runs/sparse"
)
FIRST = {CNN7: 500}
"""Networks that only so many of the test images are measured on: a proof takes seconds."""


def asked(row: Row) -> Recipe:
    """The recipe that a row's command trains."""
    words = [word for word in row.command() if word != "--resume"]
    given = {key[2:]: word for key, word in zip(words[::2], words[1::2], strict=True)}
    own, _ = load_recipe(given.pop("recipe")), given.pop("out")
    kinds: dict[str, Callable[[str], Any]] = {"sparsity": float, "arch-args": json.loads}
    kinds |= dict.fromkeys(("epochs", "steps", "seed"), int)
    names = {"arch": "architecture", "arch-args": "arguments"}
    told = {names.get(key, key): kinds.get(key, str)(word) for key, word in given.items()}
    return override(own, told)


def train(row: Row, log: Path) -> None:
    """Train a row's model where it is not there."""
    if (MODELS / row.name / f"{row.name}.json").exists():
        return
    _run("train", row.command(), log)


def evaluate(row: Row, log: Path) -> dict[str, Any]:
    """Measure a row's model; return what the table needs, as JSON values."""
    weights = MODELS / row.name / f"{row.name}.safetensors"
    loaded = zoo.load(str(weights))
    if loaded.card is None or loaded.card.cost is None:
        raise RunError(f"{weights.parent} holds no card with a cost: remove it and train anew")
    if loaded.card.recipe_sha256 != asked(row).sha256:
        raise RunError(
            f"{weights.parent} was trained by another recipe or other options than row "
            f"'{row.name}' has now: remove it and train anew"
        )
    words = ["--model", str(weights), *EVALUATION.split(), "--json"]
    if row.network in FIRST:
        words += ["--samples", str(FIRST[row.network])]
    told = _run("evaluate", words, log)
    summary = json.loads(told)
    test = data.load("fashion-mnist", split="test")
    threat = ThreatModel("linf", EPS, test.lower, test.upper)
    counts = count(loaded.module, test.x[:1])
    return {
        "row": row.name,
        "method": row.method,
        "network": row.network,
        "asked": row.sparsity,
        "seed": row.seed,
        "sparsity": counts.sparsity,
        "nonzero_weights": counts.nonzero_weights,
        "nonzero_macs": counts.nonzero_macs,
        "clean": summary["clean_accuracy"]["value"],
        "robust": summary["robust_accuracy"]["value"],
        "certified": summary["certified_accuracy"]["value"],
        "samples": summary["samples"],
        "unstable": unstable_relus(loaded.module, test.x[:UNSTABLE_ON], threat).unstable,
        "samples_seen": loaded.card.cost.samples,
        "seconds": loaded.card.cost.seconds,
        "train": "robust-train " + " ".join(row.command()),
        "run": summary["run_id"],
        "identity": summary["identity"],
        "model_sha256": loaded.sha256,
    }


def _run(what: str, words: list[str], log: Path) -> str:
    code = f"from robustbench_c.cli.{what} import main; main()"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a") as errors:
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
    if done.returncode:
        raise RunError(f"robust-{what} {' '.join(words)}: exit code {done.returncode}, see {log}")
    return done.stdout


def work(names: list[str], jobs: int) -> None:
    """Train and evaluate rows, those they start from first; each result is kept as it comes."""
    wanted = list(dict.fromkeys(n for name in names for n in (ROWS[name].start, name) if n))
    lock = Lock()

    def both(name: str, start: Future[None] | None) -> None:
        if start is not None:
            start.result()
        log = MODELS / f"{name}.log"
        train(ROWS[name], log)
        found = evaluate(ROWS[name], log)
        with lock:
            kept = {row["row"]: row for row in read()} | {name: found}
            ordered = [kept[n] for n in ROWS if n in kept]
            write_atomically(KEPT, (json.dumps(ordered, indent=1) + "\n").encode())
            write_atomically(TABLE, table(ordered).encode())
        sys.stderr.write(f"{name}: certified {found['certified']:.2%}\n")

    with ThreadPoolExecutor(jobs) as pool:
        ahead: dict[str, Future[None]] = {}
        for name in wanted:  # a start comes before what starts from it, so that no wait is endless
            ahead[name] = pool.submit(both, name, ahead.get(ROWS[name].start or ""))
        failed = [error for each in ahead.values() if (error := each.exception())]
    if failed:
        raise failed[0]


def read() -> list[dict[str, Any]]:
    """The rows that are done, of those that there still are."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else []
    return [row for row in kept if row["row"] in ROWS]


INTRO = """# Sparse training methods on Fashion-MNIST

Made by `make sparse` (`scripts/sparse_table.py`) from recipes of the package; figures are measured,
on all 10,000 test images (CNN7: the first {first}), by `robust-eval {evaluation}`.
*Sparsity*: zeros among the weights of linear and convolution layers, counted on the model.
*PGD* and *certified error*: share wrong or broken by the attack, and share wrong or not proven, at
Linf eps {eps:g}; the verifier is CROWN. *Unstable*: mean share of ReLUs whose interval bounds hold
0 inside, over the first {unstable:,} test images. *Seen*: training samples in millions, with those
of the model it started from; *seconds* likewise, one thread each on a shared machine. Rows of
several seeds show the mean, and the standard deviation behind ±. As data: docs/sparse-table.json.
"""


def table(rows: list[dict[str, Any]]) -> str:
    """The page."""
    parts = [INTRO.format(evaluation=EVALUATION, first=FIRST[CNN7], eps=EPS, unstable=UNSTABLE_ON)]
    for network in dict.fromkeys(row["network"] for row in rows):
        lines = [
            f"## {network}\n",
            "| method | sparsity | seeds | clean error | PGD error | certified error | unstable "
            "| seen | seconds |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        here = [row for row in rows if row["network"] == network]
        for asked, method in sorted({(r["asked"], r["method"]) for r in here}, key=_order(here)):
            same = [row for row in here if (row["asked"], row["method"]) == (asked, method)]
            lines.append(_line(method, same))
        parts.append("\n".join(lines) + "\n")
    missing = [name for name in ROWS if name not in {row["row"] for row in rows}]
    if missing:
        parts.append(f"Not run yet ({len(missing)} of {len(ROWS)}): {', '.join(missing)}.\n")
    return "\n".join(parts) + _notes()


def _order(rows: list[dict[str, Any]]) -> Callable[[tuple[float, str]], tuple[float, float]]:
    """By sparsity, then by certified error."""

    def key(pair: tuple[float, str]) -> tuple[float, float]:
        same = [row["certified"] for row in rows if (row["asked"], row["method"]) == pair]
        return pair[0], -mean(same)

    return key


def _line(method: str, rows: list[dict[str, Any]]) -> str:
    def error(key: str) -> str:
        values = [100 * (1 - row[key]) for row in rows]
        spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
        return f"{mean(values):.2f}%{spread}"

    def average(key: str) -> float:
        return float(mean(row[key] for row in rows))

    cells = [
        method,
        f"{average('sparsity'):.2%}",
        str(len(rows)),
        error("clean"),
        error("robust"),
        error("certified"),
        f"{average('unstable'):.1%}",
        f"{average('samples_seen') / 1e6:.2f}",
        f"{average('seconds'):.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _notes() -> str:
    """What was written by hand below the table stays."""
    mark = "## What it says"
    if not TABLE.exists() or mark not in (old := TABLE.read_text(encoding="utf-8")):
        return ""
    return "\n" + old[old.index(mark) :]


def main() -> None:
    """Make the rows named on the command line, or all, and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", metavar="ROW", help="rows to make [all]")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--table", action="store_true", help="write the table of what is done")
    parser.add_argument("--list", action="store_true", help="show the rows")
    given = parser.parse_args()
    unknown = [name for name in given.rows if name not in ROWS]
    if unknown:
        parser.error(f"no row '{unknown[0]}'; {did_you_mean(unknown[0], list(ROWS))}")
    if given.jobs < 1:
        parser.error(f"--jobs {given.jobs} is not 1 or more")
    if given.list:
        sys.stdout.write("".join(f"{name}\n" for name in ROWS))
    elif given.table:
        write_atomically(TABLE, table(read()).encode())
    else:
        try:
            work(given.rows or list(ROWS), given.jobs)
        except HarnessError as error:
            sys.stderr.write(f"sparse_table: error: {error}\n")
            raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    main()
