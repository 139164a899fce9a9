"""`robust-eval`: what an attacker can break of a model, sample by sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_c.cli import options
from robustbench_c.cli.app import new_app, run_app
from robustbench_c.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from attacks.threat import ThreatModel
    from robustbench_c.data import Dataset
    from robustbench_c.evaluation import Run
    from robustbench_c.zoo.cards import Card

app = new_app()

_ATTACKS = ["pgd"]
_MOST = 1_000_000
_SHIPPED = {"fashion-mnist": "fashion-mnist-mini"}
"""Data sets that need a download, and the part of them that is in the package."""


def main() -> None:
    """Run the command line."""
    run_app(
        app,
        "robust-eval",
        stopped="stopped; the same command goes on after the last finished shard",
    )


@app.command()
def evaluate(
    context: typer.Context,
    model: options.Model = None,
    protocol: Annotated[
        str | None, typer.Option(help="Named settings of data, threat and attack, or a .toml.")
    ] = None,
    attack: Annotated[str, typer.Option(help="The attack: pgd.")] = "pgd",
    data: options.Data = None,
    samples: Annotated[int | None, typer.Option(help="The first N samples [all].")] = None,
    norm: Annotated[str | None, typer.Option(help="linf, l2 or l1 [the card's].")] = None,
    eps: Annotated[float | None, typer.Option(help="Radius [the card's].")] = None,
    eps_unit: Annotated[
        str, typer.Option(help="input: the data's units; range: of each feature's range.")
    ] = "input",
    immutable: Annotated[
        str | None, typer.Option(help="Features that may not change: names or places, a,b,c.")
    ] = None,
    steps: Annotated[int, typer.Option(max=_MOST, help="Gradient steps of one restart.")] = 40,
    restarts: Annotated[int, typer.Option(max=_MOST, help="Restarts.")] = 5,
    step_size: Annotated[float | None, typer.Option(help="Length of a step [eps/4].")] = None,
    loss: Annotated[str, typer.Option(help="ce, margin or dlr.")] = "ce",
    goal: Annotated[str, typer.Option(help="untargeted or multi-targeted.")] = "untargeted",
    seed: Annotated[int, typer.Option(min=0, max=2**53, help="Seed of all noise.")] = 0,
    batch_size: Annotated[
        str, typer.Option(help="Most samples in a pass; changes no verdict.")
    ] = "auto",
    device: options.Device = "auto",
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    save_adversarial: Annotated[
        bool, typer.Option("--save-adversarial", help="Keep every adversarial example.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Run again although the record is there.")
    ] = False,
    split: options.Split = "test",
    data_dir: options.DataDir = None,
    label_column: options.LabelColumn = None,
    box: options.Box = None,
    arch: options.Arch = None,
    arch_args: options.ArchArgs = None,
    mean: options.Mean = None,
    std: options.Std = None,
    trust_checkpoint: options.Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show models, data, protocols.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show versions.")] = False,
) -> None:
    """Evaluate a model under attack; verdicts, table and record for every sample."""
    if list_ or version:
        _show_known() if list_ else _show_versions()
        return
    if model is None:
        raise UsageError("give a --model (robust-eval --list shows those of the zoo)")
    if attack not in _ATTACKS:
        raise UsageError(f"no attack '{attack}'; {did_you_mean(attack, _ATTACKS)}")
    if eps_unit not in ("input", "range"):
        raise UsageError(f"--eps-unit '{eps_unit}' is neither input nor range")
    most = _batch_size(batch_size)
    if protocol is not None:
        from robustbench_c.evaluation.protocols import load_protocol

        named = load_protocol(protocol)
        fixed = named.model_dump(exclude={"name", "description"})
        given = [key for key in (*fixed, "eps_unit", "immutable") if _is_given(context, key)]
        if given:
            option = given[0].replace("_", "-")
            raise UsageError(f"--protocol {protocol} fixes --{option}: leave one of them out")
        data, norm, eps = named.data, named.norm, named.eps
        steps, restarts, step_size = named.steps, named.restarts, named.step_size
        loss, goal, protocol = named.loss, named.goal, named.name

    from rich.console import Console

    from attacks.pgd import PGDConfig
    from robustbench_c import evaluation
    from robustbench_c.cli.run_progress import RunProgress

    config = PGDConfig(
        steps=steps,
        restarts=restarts,
        step_size=step_size,
        loss=loss,  # type: ignore[arg-type]
        goal=goal,  # type: ignore[arg-type]
    )
    card = options.card_of(model)
    dataset = options.load_data(_data_name(data, card), split, data_dir, label_column, box)
    if samples is not None:
        dataset = dataset.head(samples)
    where = options.pick_device(device)
    threat = _threat(dataset, card, norm, eps, eps_unit, immutable)
    loaded = options.load_model(
        model, card, dataset, where, arch, arch_args, mean, std, trust_checkpoint
    )
    stderr = Console(stderr=True)
    with RunProgress(stderr) as progress:
        run = evaluation.evaluate(
            loaded,
            dataset,
            threat=threat,
            attack=config,
            seed=seed,
            batch_size=most,
            device=where,
            out=out,
            save_adversarial=save_adversarial,
            overwrite=overwrite,
            protocol_name=protocol,
            progress=progress,
        )
    for notice in run.store.manifest.notices:
        stderr.print(f"notice: {notice}", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print(run.summary.to_bytes().decode(), end="")
        return
    _show(run)


def _is_given(context: typer.Context, option: str) -> bool:
    """Whether the user set an option (and not its default)."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UsageError(f"--batch-size '{text}' is neither auto nor a number from 1 up")
    return int(text)


def _data_name(data: str | None, card: Card | None) -> str:
    if data is not None:
        return data
    if card is None or card.data is None:
        raise UsageError("give --data: the model has no card that names its own")
    return _SHIPPED.get(card.data, card.data)


def _threat(
    data: Dataset,
    card: Card | None,
    norm: str | None,
    eps: float | None,
    eps_unit: str,
    immutable: str | None,
) -> ThreatModel:
    from attacks.threat import ThreatModel, feature_ranges

    trained = card.threat if card else None
    if eps is None:
        if trained is None or norm not in (None, trained.norm) or eps_unit != "input":
            raise UsageError("give --eps: the model's card names none for this norm and unit")
        eps = trained.eps
    if norm is None:
        norm = trained.norm if trained else "linf"
    ranged = eps_unit == "range"
    scale = feature_ranges(data.lower, data.upper, data.shape) if ranged else None
    mask = _immutable(data, immutable)
    return ThreatModel(norm, eps, data.lower, data.upper, mask, scale)  # type: ignore[arg-type]


def _immutable(data: Dataset, text: str | None) -> Tensor | None:
    if text is None:
        return None
    import torch

    known = list(data.feature_names)
    size = data.x[0].numel()
    mask = torch.zeros(size, dtype=torch.bool)
    for part in map(str.strip, text.split(",")):
        if part in known:
            mask[known.index(part)] = True
        elif part.isascii() and part.isdigit() and int(part) < size:
            mask[int(part)] = True
        else:
            hint = did_you_mean(part, known) if known else f"places go from 0 to {size - 1}"
            raise UsageError(f"--immutable: no feature '{part}'; {hint}")
    return mask.view(data.shape)


def _show(run: Run) -> None:
    from robustbench_c.cli.tables import print_run

    print_run(run.store, run.summary)
    if run.resumed:
        print("went on with the record that was there (--overwrite starts afresh)")
    print(f"record: {run.folder}")
    if (sheet := run.folder / "contact-sheet.png").exists():
        print(f"pictures: {sheet}")


def _show_known() -> None:
    from rich.table import Table

    from robustbench_c import zoo
    from robustbench_c.cli.tables import wide_console
    from robustbench_c.data.registry import REGISTRY
    from robustbench_c.evaluation.protocols import known_protocols, load_protocol

    models = Table("model", "architecture", "data", "trained for", "clean", box=None)
    for name in zoo.names():
        card = zoo.card(name)
        threat = f"{card.threat.norm} {card.threat.eps:g}" if card.threat else "-"
        clean = f"{card.clean_accuracy.accuracy:.2%}" if card.clean_accuracy else "-"
        models.add_row(name, card.architecture, card.data or "-", threat, clean)
    sets = Table("data", "what it is", box=None)
    for name, entry in REGISTRY.items():
        sets.add_row(name, entry.description)
    protocols = Table("protocol", "what it is", box=None)
    for name in known_protocols():
        protocols.add_row(name, load_protocol(name).description)
    console = wide_console()
    for part in (models, "", sets, "", protocols, "", f"attacks: {', '.join(_ATTACKS)}"):
        console.print(part)


def _show_versions() -> None:
    import importlib.metadata

    import robustbench_c
    from certify.lirpa import notice

    print(f"robustbench-c {robustbench_c.__version__}")
    for name in ("torch", "numpy", "foolbox", "auto_LiRPA"):
        try:
            print(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{name}: {(notice() or 'absent') if name == 'auto_LiRPA' else 'absent'}")
