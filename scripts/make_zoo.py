"""Rebuilds the models that are shipped: trains each by its recipe, measures it, writes its card.

    make zoo                                    all of them (about half an hour on two cores)
    python scripts/make_zoo.py fmnist-cnn-pgd   one of them
    python scripts/make_zoo.py --measure fmnist-cnn-pgd    the shipped weights, measured anew

Trainings go to models/<recipe> and can be stopped: the next call goes on with the last epoch.
Needs the whole of Fashion-MNIST (see docs/data.md).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from attacks.pgd import PGDConfig
from attacks.suites import AUTO
from attacks.threat import Norm, ThreatModel
from robustbench_c import data, evaluate, zoo
from robustbench_c.cli.run_progress import RunProgress
from robustbench_c.cli.train_progress import ConsoleProgress
from robustbench_c.errors import RunError, did_you_mean
from robustbench_c.evaluation.certifying import CertifyConfig
from robustbench_c.training.recipe import load_recipe
from robustbench_c.training.run import run
from robustbench_c.zoo.cards import WEIGHTS


@dataclass(frozen=True)
class Shipped:
    """What is measured of a shipped model.

    Attributes:
        norm: Of the threat its robust accuracy is measured at, if it is.
        eps: Its radius.
        certify: Whether to prove it.
        auto: Whether to attack it by the suite `auto` as well.
    """

    norm: Norm | None = None
    eps: float = 0.0
    certify: bool = False
    auto: bool = False


SHIPPED = {
    "fmnist-cnn-standard": Shipped("linf", 0.1),
    **{f"fmnist-cnn-{m}": Shipped("linf", 0.1, auto=True) for m in ("pgd", "trades", "awp")},
    "fmnist-cnn-ibp": Shipped("linf", 0.1, certify=True),
    "fmnist-cnn-crown-ibp": Shipped("linf", 0.1, certify=True),
    "fmnist-cnn-mtl-ibp": Shipped("linf", 0.1, certify=True),
    **{f"fmnist-cnn-sparsevlr-{p}": Shipped("linf", 0.1, certify=True) for p in (90, 95, 99)},
    "breast-cancer-mlp": Shipped(),
    # their figures, about explanations, are measured by scripts/explanation_table.py
    **{
        f"{stem}-{method}": Shipped()
        for stem in ("fmnist-softplus", "german-mlp", "adult-mlp")
        for method in ("standard", "align", "hessian", "explain")
    },
}


def make(name: str, console: Console, again: bool) -> None:
    """Train, measure and ship one model; where `again`, measure the shipped one."""
    recipe, folder = load_recipe(name), Path("models") / name
    if not again and not (folder / f"{name}.json").exists():
        with ConsoleProgress(console) as progress:
            run(recipe, folder, resume=True, progress=progress)
    loaded = zoo.load(name if again else str(folder / f"{name}.safetensors"))
    if loaded.card is None or loaded.card.recipe_sha256 != recipe.sha256:
        raise RunError(f"{name} is not what its recipe makes now: train it again")
    draft = zoo.Draft(**{k: v for k, v in dict(loaded.card).items() if k != "sha256"})
    if draft.clean_accuracy is not None:
        command = f"robust-eval --model {name} --data {recipe.data} --eps 0 --steps 1 --restarts 1"
        clean = draft.clean_accuracy.model_copy(update={"command": command})
        draft = draft.model_copy(update={"clean_accuracy": clean})
    if SHIPPED[name].norm is not None:
        draft = measured(loaded, recipe.data, SHIPPED[name], draft, console)
    zoo.save(loaded.module, draft, WEIGHTS)
    console.print(f"shipped {name}: {WEIGHTS / name}.safetensors and .json", soft_wrap=True)


def measured(
    loaded: zoo.LoadedModel, source: str, wanted: Shipped, draft: zoo.Draft, console: Console
) -> zoo.Draft:
    """The draft of a card, with what is measured on all of the test split."""
    test, norm = data.load(source, split="test"), wanted.norm or "linf"
    threat = ThreatModel(norm, wanted.eps, test.lower, test.upper)
    trained = zoo.TrainedFor(norm=norm, eps=wanted.eps)
    pgd = PGDConfig(steps=40, restarts=5)
    certify = CertifyConfig("cascade") if wanted.certify else None
    words = f"robust-eval --model {draft.name} --data {source} --norm {norm} --eps {wanted.eps:g}"
    shown = f"pgd-40x5, step {pgd.resolved_step(wanted.eps):g}, {pgd.loss}"
    rates: list[zoo.RobustMeasured] = []
    clean: zoo.Measured | None = None
    for attack, protocol, more in (
        (pgd, shown, "--attack pgd --steps 40 --restarts 5"),
        *(((AUTO, "auto", "--attack auto"),) if wanted.auto else ()),
    ):
        with RunProgress(console) as progress:
            found = evaluate(
                loaded,
                test,
                threat=threat,
                attack=attack,
                certify=certify,
                diagnose=False,
                progress=progress,
            ).summary
        if found.clean_accuracy is None or found.robust_accuracy is None:
            raise RunError(f"{draft.name}: the evaluation did not come to its end")
        command = f"{words} {more}" + (" --certify cascade" if certify else "")
        common = {"samples": len(test), "data": test.name, "command": command}
        clean = clean or zoo.Measured(accuracy=found.clean_accuracy.value, **common)
        if attack is AUTO:  # what it is changes: the hash says which it was
            protocol = f"auto, protocol {found.protocol_sha256[:12]}"
        told = [(protocol, found.robust_accuracy.value)]
        if certify is not None and found.certified_accuracy is not None:
            methods = ", ".join(certify.methods)
            told.append((f"certified: {methods}", found.certified_accuracy.value))
        rates += [
            zoo.RobustMeasured(accuracy=rate, threat=trained, protocol=said, **common)
            for said, rate in told
        ]
    return draft.model_copy(update={"clean_accuracy": clean, "robust": tuple(rates)})


def main() -> None:
    """Make the models named on the command line, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", metavar="MODEL", help="shipped models [all]")
    parser.add_argument("--measure", action="store_true", help="measure the shipped weights anew")
    given = parser.parse_args()
    unknown = [name for name in given.models if name not in SHIPPED]
    if unknown:
        parser.error(f"no model '{unknown[0]}'; {did_you_mean(unknown[0], list(SHIPPED))}")
    console = Console(stderr=True)
    for name in given.models or SHIPPED:
        make(name, console, given.measure)


if __name__ == "__main__":
    main()
