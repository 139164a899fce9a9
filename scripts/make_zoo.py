"""Rebuilds the models that are shipped: trains each by its recipe, measures it, writes its card.

    make zoo                                    all of them (about half an hour on two cores)
    python scripts/make_zoo.py fmnist-cnn-pgd   one of them

Trainings go to models/<recipe> and can be stopped: the next call goes on with the last epoch.
Needs the whole of Fashion-MNIST (see docs/data.md).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from attacks.pgd import PGDConfig
from attacks.threat import Norm, ThreatModel
from robustbench_c import data, evaluate, zoo
from robustbench_c.cli.run_progress import RunProgress
from robustbench_c.cli.train_progress import ConsoleProgress
from robustbench_c.errors import RunError
from robustbench_c.evaluation.certifying import CertifyConfig
from robustbench_c.training.recipe import load_recipe
from robustbench_c.training.run import run
from robustbench_c.zoo.cards import WEIGHTS


@dataclass(frozen=True)
class Shipped:
    """A shipped model, the threat its robust accuracy is measured at, and whether to prove it."""

    norm: Norm | None = None
    eps: float = 0.0
    certify: bool = False


SHIPPED = {
    "fmnist-cnn-standard": Shipped("linf", 0.1),
    "fmnist-cnn-pgd": Shipped("linf", 0.1),
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


def make(name: str, console: Console) -> None:
    """Train, measure and ship one model."""
    recipe, folder = load_recipe(name), Path("models") / name
    if not (folder / f"{name}.json").exists():
        with ConsoleProgress(console) as progress:
            run(recipe, folder, resume=True, progress=progress)
    loaded = zoo.load(str(folder / f"{name}.safetensors"))
    if loaded.card is None:
        raise RunError(f"{folder} holds no card: remove the folder and make the model again")
    draft = zoo.Draft(**{k: v for k, v in dict(loaded.card).items() if k != "sha256"})
    wanted = SHIPPED[name]
    if draft.clean_accuracy is not None:
        command = f"robust-eval --model {name} --data {recipe.data} --eps 0 --steps 1 --restarts 1"
        clean = draft.clean_accuracy.model_copy(update={"command": command})
        draft = draft.model_copy(update={"clean_accuracy": clean})
    if wanted.norm is not None:
        test = data.load(recipe.data, split="test")
        threat = ThreatModel(wanted.norm, wanted.eps, test.lower, test.upper)
        config = PGDConfig(steps=40, restarts=5)
        certify = CertifyConfig("cascade") if wanted.certify else None
        with RunProgress(console) as shown:
            found = evaluate(
                loaded, test, threat=threat, attack=config, certify=certify, progress=shown
            ).summary
        if found.clean_accuracy is None or found.robust_accuracy is None:
            raise RunError(f"{name}: the evaluation did not come to its end")
        command = (
            f"robust-eval --model {name} --data {recipe.data} --attack pgd "
            f"--norm {wanted.norm} --eps {wanted.eps:g} --steps 40 --restarts 5"
        ) + (" --certify cascade" if certify else "")
        common = {"samples": len(test), "data": test.name, "command": command}
        clean = zoo.Measured(accuracy=found.clean_accuracy.value, **common)
        trained = zoo.TrainedFor(norm=wanted.norm, eps=wanted.eps)
        attack = f"pgd-40x5, step {config.resolved_step(wanted.eps):g}, {config.loss}"
        rates = [(attack, found.robust_accuracy.value)]
        if certify is not None and found.certified_accuracy is not None:
            rates.append(
                (f"certified: {', '.join(certify.methods)}", found.certified_accuracy.value)
            )
        robust = tuple(
            zoo.RobustMeasured(accuracy=rate, threat=trained, protocol=protocol, **common)
            for protocol, rate in rates
        )
        draft = draft.model_copy(update={"clean_accuracy": clean, "robust": robust})
    zoo.save(loaded.module, draft, WEIGHTS)
    console.print(f"shipped {name}: {WEIGHTS / name}.safetensors and .json", soft_wrap=True)


def main() -> None:
    """Make the models named on the command line, or all."""
    console = Console(stderr=True)
    for name in sys.argv[1:] or SHIPPED:
        make(name, console)


if __name__ == "__main__":
    main()
