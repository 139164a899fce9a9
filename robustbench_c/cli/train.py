"""`robust-train`: train a recipe's model into a folder, ready for `robust-eval`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_c.cli import federated, options, plan
from robustbench_c.cli.app import new_app, run_app
from robustbench_c.errors import UsageError

if TYPE_CHECKING:
    pass

app = new_app()


def main() -> None:
    """Run the command line."""
    run_app(app, "robust-train", stopped="stopped; run the same command with --resume to go on")


@app.command()
def train(
    recipe: Annotated[
        str | None, typer.Option(help="Name of a shipped recipe, or a path to a TOML file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for weights, card and logs [models/NAME].")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the trained model.")] = None,
    data: Annotated[str | None, typer.Option(help="Data set, by name or path.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the data lie.")] = None,
    arch: Annotated[str | None, typer.Option(help="Architecture, with its defaults.")] = None,
    arch_args: options.ArchArgs = None,
    objective: Annotated[
        str | None, typer.Option(help="Train on another loss: that of the shipped recipe NAME.")
    ] = None,
    norm: Annotated[str | None, typer.Option(help="Norm of the threat: linf, l2 or l1.")] = None,
    eps: Annotated[float | None, typer.Option(help="Radius, in the data's units.")] = None,
    steps: Annotated[int | None, typer.Option(help="Attack steps while training.")] = None,
    step_size: Annotated[
        float | None, typer.Option(help="Length of a step [scaled with eps and steps].")
    ] = None,
    sparsity: Annotated[
        float | None, typer.Option(help="Share of the weights that is zero, of a sparse recipe.")
    ] = None,
    allocation: Annotated[
        str | None, typer.Option(help="How layers share what is kept: global, uniform or erk.")
    ] = None,
    structure: Annotated[
        str | None, typer.Option(help="What is pruned as one: weights or channels.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Trained model to start from, by name or path.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples per step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Its peak.")] = None,
    keep: Annotated[
        str | None, typer.Option(help="The epoch that is saved: last, or best-robust.")
    ] = None,
    validation: Annotated[
        float | None, typer.Option(help="Samples held out, or below 1 their share.")
    ] = None,
    ema_decay: Annotated[
        float | None, typer.Option(help="Save the moving average of the weights; decay per step.")
    ] = None,
    clients: federated.Clients = None,
    alpha: federated.Alpha = None,
    local_epochs: federated.LocalEpochs = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last epoch.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Train anew over a model of this name.")
    ] = False,
    plan_: plan.Plan = False,
    list_: Annotated[bool, typer.Option("--list", help="Show the shipped recipes.")] = False,
) -> object:
    """Train a model by a recipe; options replace the recipe's own values."""
    if list_:
        _show_recipes()
        return None
    if recipe is None:
        raise UsageError("give a --recipe (robust-train --list shows them)")
    if resume and overwrite:
        raise UsageError("--resume goes on and --overwrite starts anew: give one of them")
    from rich.console import Console

    from robustbench_c.training.recipe import left_out, load_recipe, override

    shipped = load_recipe(recipe)
    given = {
        "name": name,
        "data": data,
        "architecture": arch,
        "arguments": options.arguments(arch_args),
        "objective": objective,
        "norm": norm,
        "eps": eps,
        "steps": steps,
        "step_size": step_size,
        "sparsity": sparsity,
        "allocation": allocation,
        "structure": structure,
        "start": start,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "keep": keep,
        "validation": validation,
        "ema_decay": ema_decay,
        "clients": clients,
        "alpha": alpha,
        "local_epochs": local_epochs,
        "seed": seed,
    }
    chosen = override(shipped, given)
    for setting in left_out(shipped, chosen, given):
        print(
            f"notice: the recipe's {setting} does not go with clients: it is left out",
            file=sys.stderr,
        )
    folder = out or Path("models") / chosen.name

    from robustbench_c.cli.train_progress import ConsoleProgress
    from robustbench_c.training.run import run

    if plan_:
        from robustbench_c.training.trial import estimate_training

        found = estimate_training(chosen, device, data_dir)
        plan.show_plan(found)
        return found
    with ConsoleProgress(Console(stderr=True)) as progress:
        trained = run(
            chosen,
            folder,
            device=device,
            data_dir=data_dir,
            resume=resume,
            overwrite=overwrite,
            progress=progress,
        )
    if trained.empty:
        print(
            f"notice: pruning left no weight of {', '.join(trained.empty)}: what comes after is "
            "constant; --allocation erk or uniform keeps some in every layer",
            file=sys.stderr,
        )
    if chosen.federated is not None:
        federated.print_clients(folder)
    if trained.clean_accuracy is not None:
        print(f"clean accuracy on the test split of {chosen.data}: {trained.clean_accuracy:.2%}")
    print(f"wrote {trained.weights} with its card, log.csv, log.jsonl and training.png/.svg")
    folder_of_data = f" --data-dir {data_dir}" if data_dir else ""
    radius = "" if chosen.objective.threat else " --eps 0.1"
    print(
        f"next: robust-eval --model {trained.weights} --data {chosen.data}{folder_of_data}{radius}"
    )
    return None


def _show_recipes() -> None:
    from rich.console import Console
    from rich.table import Table

    from robustbench_c.training.recipe import known_recipes, load_recipe

    table = Table("recipe", "data", "architecture", "objective", "epochs", "what it is", box=None)
    for key in known_recipes():
        recipe = load_recipe(key)
        known = recipe.objective.threat
        threat = f" ({known['norm']} {known['eps']:g})" if known else ""
        table.add_row(
            key,
            recipe.data,
            recipe.architecture.name,
            recipe.objective.name + threat,
            str(recipe.train.epochs),
            recipe.description,
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table, highlight=False)
