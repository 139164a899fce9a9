"""Makes docs/explanation-table.md: training methods, and how far their explanations can be bent.

The figures go onto the models' cards as well.

    make explanations                                  all of it, 500 test samples a model
    python scripts/explanation_table.py --samples 250  fewer
    python scripts/explanation_table.py german adult   these sets alone, printed and not written

Runs the product's own evaluation of each shipped model; runs that are on disk are gone on with.
Needs the whole of Fashion-MNIST, and Adult (--adult-dir, or see docs/data.md).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from attacks.explanation_measures import cosine
from attacks.explanations import explain
from attacks.threat import ThreatModel
from leaderboards.rates import Rate
from robustbench_c import ExplainConfig, data, evaluate_explanations, zoo
from robustbench_c.cli.run_progress import RunProgress
from robustbench_c.data import Dataset
from robustbench_c.errors import RunError
from robustbench_c.zoo.cards import WEIGHTS, ExplanationMeasured

TABLE = Path(__file__).parents[1] / "docs" / "explanation-table.md"


@dataclass(frozen=True)
class Compared:
    """Models of one architecture on one data set.

    Attributes:
        title: Words for the reader.
        data: The data set.
        eps: Linf radius in units of the input, the same for all; every feature may move.
        models: Names in the zoo.
    """

    title: str
    data: str
    eps: float
    models: tuple[str, ...]

    def load(self, samples: int, folder: Path | None) -> Dataset:
        """The first test samples, as many as there are."""
        test = data.load(self.data, split="test", data_dir=folder)
        return test.head(min(samples, len(test)))

    def command(self, model: str, samples: int) -> str:
        """The command that gives the same record."""
        return (
            f"robust-eval --model {model} --data {self.data} --explain gradient --norm linf "
            f"--eps {self.eps:g} --immutable none --samples {samples}"
        )


def _family(stem: str) -> tuple[str, ...]:
    return tuple(f"{stem}-{method}" for method in ("standard", "align", "hessian", "explain"))


SETS = {
    "fashion-mnist": Compared(
        "Fashion-MNIST, `cnn-small` with softplus (beta 10)",
        "fashion-mnist",
        0.06,
        (*_family("fmnist-softplus"), "fmnist-cnn-standard"),
    ),
    "german": Compared(
        "German credit, MLP 2x256 (ReLU)", "german-credit", 0.1, _family("german-mlp")
    ),
    "adult": Compared("Adult, MLP 2x256 (ReLU)", "adult", 0.15, _family("adult-mlp")),
}

INTRO = """# How far explanations can be bent, by training method

Made by `make explanations` from the models of the zoo; every figure is measured by `robust-eval`.
The explanation is the gradient of the predicted class's logit. It counts as bent when its cosine
similarity with the clean one falls below 0.9 (`Criterion("cosine", 0.1)`), which no scaling of
gradients changes. *Certified*: no input within eps bends it so (method `crown-interval`). *Bent*:
an attack of 50 steps did, prediction kept. Every feature may move by eps, one-hot columns and
protected ones too (`--immutable none`). Rates are shares of the first test samples, with exact 95 %
intervals; the clean accuracy is of the whole test split. *Alike*: the median cosine similarity of
two samples' explanations of the same logit, over pairs at random. A linear model certifies
everything, since it explains every sample alike: near 1, a certificate says little.
"""


def row(name: str, compared: Compared, samples: int, folder: Path | None, console: Console) -> str:
    """Evaluate one model, write what was found on its card, and return its line of the table."""
    loaded = zoo.load(name)
    test = compared.load(samples, folder)
    free = torch.zeros(test.shape, dtype=torch.bool)
    threat = ThreatModel.box("linf", compared.eps, test.lower, test.upper, immutable=free)
    with RunProgress(console) as progress:
        found = evaluate_explanations(
            loaded, test, threat=threat, config=ExplainConfig(k=5), progress=progress
        ).summary.explanation
    card = loaded.card
    if found is None or card is None or card.clean_accuracy is None:
        raise RunError(f"{name}: the evaluation did not come to its end")
    rates = found.certified, found.bent, found.undecided
    shares = " | ".join([*(_share(rate) for rate in rates), f"{_alike(loaded.module, test.x):.3f}"])
    measured = ExplanationMeasured(
        explanation="gradient of the predicted class's logit",
        criterion="bent where the cosine similarity falls below 0.9",
        threat=zoo.TrainedFor(norm="linf", eps=compared.eps),
        certified=_value(found.certified),
        bent=_value(found.bent),
        protocol="certified: crown-interval; bent: explain-attack, 50 steps, 1 restart",
        samples=len(test),
        data=test.name,
        command=compared.command(name, len(test)),
    )
    draft = zoo.Draft(**{k: v for k, v in dict(card).items() if k != "sha256"})
    zoo.save(loaded.module, draft.model_copy(update={"explanations": (measured,)}), WEIGHTS)
    return f"| `{name}` | {card.clean_accuracy.accuracy:.1%} | {shares} |"


def _alike(module: nn.Module, x: Tensor) -> float:
    """The median similarity of the first logit's gradients at pairs of samples."""
    found = explain(module, x, torch.zeros(len(x), dtype=torch.int64)).detach().flatten(1).double()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return float(cosine(found[order], found[order.roll(1)]).median())


def _value(rate: Rate | None) -> float:
    if rate is None:
        raise RunError("the evaluation did not come to its end")
    return rate.value


def _share(rate: Rate | None) -> str:
    if rate is None:
        raise RunError("the evaluation did not come to its end")
    return f"{rate.value:.1%} ({rate.lower:.1%} to {rate.upper:.1%})"


def main() -> None:
    """Evaluate the sets named on the command line, or all, and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", choices=[*SETS, []])
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--adult-dir", type=Path, default=None)
    given = parser.parse_args()
    console = Console(stderr=True)
    parts, known = [INTRO], zoo.names()
    for key in given.sets or SETS:
        compared = SETS[key]
        folder = given.adult_dir if key == "adult" else None
        size = len(compared.load(given.samples, folder))
        lines = [
            f"## {compared.title}: eps {compared.eps:g}, {size:,} samples\n",
            "| model | clean accuracy | certified | bent | neither | alike |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            row(name, compared, given.samples, folder, console)
            for name in compared.models
            if name in known
        ]
        lines.append(f"\n`{compared.command('MODEL', size)}`\n")
        parts.append("\n".join(lines))
    text = "\n".join(parts)
    if not given.sets:
        TABLE.write_text(text + _notes(), encoding="utf-8")
    sys.stdout.write(text)


def _notes() -> str:
    """What was written by hand below the table stays."""
    mark = "## How it was chosen"
    if not TABLE.exists() or mark not in (old := TABLE.read_text(encoding="utf-8")):
        return ""
    return "\n" + old[old.index(mark) :]


if __name__ == "__main__":
    main()
