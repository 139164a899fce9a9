"""Makes the records of the shipped models in `records/`; `make leaderboard` makes a site of them.

    python scripts/zoo_records.py              all that are not there yet (two hours on one core)
    python scripts/zoo_records.py --list       the commands alone, to run one by hand
    python scripts/zoo_records.py explain      those whose command has this word

Every record is that of a command of this package, on data of the package; Adult's test set is
looked for in its usual place (docs/data.md) or in --adult-dir. A run that was stopped is gone on
with.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from robustbench_c import zoo

RECORDS = Path(__file__).parents[1] / "records"
CURVES = ("fmnist-cnn-ibp", "fmnist-cnn-mtl-ibp", "fmnist-cnn-sparsevlr-99", "fmnist-cnn-pgd")
CORRUPTED = ("fmnist-cnn-standard", "fmnist-cnn-pgd", "fmnist-cnn-awp", "fmnist-cnn-mtl-ibp")
BROKEN = tuple(
    name
    for name in zoo.names()
    if name.startswith("fmnist-softplus") or name == "fmnist-cnn-standard"
)
"""Models that nearly every sample is broken of: their examples are not kept, for their size."""
PROVED = "--attack auto --certify cascade --certify-subproblems 200"
EXPLAINED = "--explain gradient --norm linf --immutable none --samples 200"


def commands() -> Iterator[str]:
    """The commands, without where data and records lie."""
    images = [name for name in zoo.names() if name.startswith("fmnist-")]
    for name in images:
        keep = "" if name in BROKEN else " --save-adversarial"
        yield (
            f"robust-eval --model {name} --data fashion-mnist-mini --norm linf --eps 0.1 "
            f"--samples 200 {PROVED}{keep}"
        )
    for name in (n for n in images if "softplus" in n):
        yield f"robust-eval --model {name} --data fashion-mnist-mini --eps 0.06 {EXPLAINED}"
    for data, eps in (("german-credit", 0.1), ("adult", 0.15)):
        family = [name for name in zoo.names() if name.startswith(data.split("-")[0])]
        for name in family:
            yield (
                f"robust-eval --model {name} --data {data} --norm linf --eps {eps} "
                f"--eps-unit range --samples 200 {PROVED}"
            )
        for name in family:
            yield f"robust-eval --model {name} --data {data} --eps {eps} {EXPLAINED}"
    yield (
        "robust-eval --model breast-cancer-mlp --data breast-cancer --norm linf --eps 0.05 "
        f"--eps-unit range {PROVED}"
    )
    for name in CURVES:
        yield (
            f"robust-eval --model {name} --data fashion-mnist-mini --norm linf --eps 0.1 "
            "--samples 100 --minimal --certify crown --radius"
        )
    for name in CORRUPTED:
        yield f"robust-corrupt --model {name} --data fashion-mnist-mini --samples 200"


def main() -> None:
    """Run the commands whose records are not there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="run those alone that have all of these words")
    parser.add_argument("--list", action="store_true", help="print the commands")
    parser.add_argument("--adult-dir", type=Path, help="folder of Adult's file")
    given = parser.parse_args()
    for command in commands():
        if not all(word in command for word in given.words):
            continue
        if given.adult_dir and "--data adult" in command:
            command += f" --data-dir {shlex.quote(str(given.adult_dir))}"
        sys.stdout.write(f"$ {command}\n")
        sys.stdout.flush()
        if not given.list:
            program, *arguments = shlex.split(command)
            script = Path(sys.executable).parent / program
            subprocess.run([script, *arguments, "--out", RECORDS], check=True)


if __name__ == "__main__":
    main()
