"""`robust-corrupt`: common corruptions and simple transformations, in no norm ball."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_c.cli import options, plan, workers
from robustbench_c.cli.app import new_app, run_app
from robustbench_c.errors import UsageError, did_you_mean, one_line

if TYPE_CHECKING:
    from robustbench_c.cli.run_progress import RunProgress
    from robustbench_c.data import Dataset
    from robustbench_c.evaluation import Run

app = new_app()

KINDS = (
    *("gaussian-noise", "shot-noise", "impulse-noise", "speckle-noise"),
    *("gaussian-blur", "defocus-blur", "glass-blur", "motion-blur", "zoom-blur"),
    *("snow", "frost", "fog", "spatter", "brightness"),
    *("contrast", "saturate", "elastic", "pixelate", "jpeg"),
)
"""Names in `attacks.corruption_kinds`, which imports torch: wrong usage must not wait for it."""
FAMILIES = (
    *("rotate", "shift", "rotate-shift", "blur"),
    *("contrast", "brightness", "noise", "jpeg"),
)
"""Names in `attacks.transformations`, likewise."""
_OF_SEARCH = ("families", "levels", "draws", "save_adversarial")
_OF_CORRUPTIONS = ("kinds", "severities")


def main() -> None:
    """Run the command line."""
    run_app(
        app,
        "robust-corrupt",
        stopped="stopped; the same command goes on after the last finished shard",
    )


@app.command()
def corrupt(
    context: typer.Context,
    model: options.Model = None,
    kinds: Annotated[
        str | None, typer.Option(help=f"Corruptions, a,b [all]: {', '.join(KINDS)}.")
    ] = None,
    severities: Annotated[str, typer.Option(help="Of each corruption, from 1 to 5.")] = "1,2,3,4,5",
    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="Instead: which simple transformation breaks a sample, and how much of it.",
        ),
    ] = False,
    families: Annotated[
        str | None, typer.Option(help=f"Of --search, a,b [all]: {', '.join(FAMILIES)}.")
    ] = None,
    levels: Annotated[
        int, typer.Option(min=1, max=1000, help="Of --search: strengths of each family.")
    ] = 6,
    draws: Annotated[
        int,
        typer.Option(min=0, max=2**20, help="Of --search: mixtures tried on what is left."),
    ] = 40,
    data: options.Data = None,
    samples: Annotated[int | None, typer.Option(help="The first N samples [all].")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**53, help="Seed of all noise.")] = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Most samples in a pass; changes no verdict."),
    ] = None,
    device: options.Device = "auto",
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    workers_: workers.Workers = 1,
    shard: workers.Shard = None,
    save_adversarial: Annotated[
        bool, typer.Option("--save-adversarial", help="Of --search: keep every sample that broke.")
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
    plan_: plan.Plan = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> object:
    """Measure a model under common corruptions, or search the simple change that breaks it."""
    if given := options.given_of(context, _OF_CORRUPTIONS if search else _OF_SEARCH):
        raise UsageError(
            f"{given} is about corruptions: leave it or --search out"
            if search
            else f"{given} belongs to --search: add it"
        )
    chosen = _names(families, "--families", FAMILIES) if search else _names(kinds, "--kinds", KINDS)
    strengths = _severities(severities)
    if model is None:
        raise UsageError("give a --model (robust-eval --list shows those of the zoo)")
    start = workers.start_of(shard)
    workers.refuse_overwrite(overwrite, workers_, shard)
    context.with_resource(workers.beside(workers_, shard))
    from rich.console import Console

    from attacks.transform_search import TransformConfig
    from robustbench_c.cli.run_progress import RunProgress
    from robustbench_c.evaluation.corrupted_pictures import draw_accuracy, draw_sheet
    from robustbench_c.evaluation.corrupting import corruptions
    from robustbench_c.evaluation.transforming import transformations
    from robustbench_c.evaluation.trial import estimate_by_trial

    card = options.card_of(model)
    name = data if data is not None else options.data_of(card)
    dataset = options.load_data(name, split, data_dir, label_column, box)
    if samples is not None:
        dataset = dataset.head(samples)
    where = options.pick_device(device)
    loaded = options.load_model(
        model, card, dataset, where, arch, arch_args, mean, std, trust_checkpoint
    )

    def measure(part: Dataset, folder: Path, watch: RunProgress | None = None) -> Run:
        if search:
            return transformations(
                loaded,
                part,
                TransformConfig(levels, draws, chosen),  # type: ignore[arg-type]  # known names
                seed=seed,
                batch_size=batch_size,
                device=where,
                out=folder,
                save_adversarial=save_adversarial,
                overwrite=overwrite,
                progress=watch,
                start=start,
            )
        return corruptions(
            loaded,
            part,
            chosen,  # type: ignore[arg-type]  # known names
            strengths,
            seed=seed,
            batch_size=batch_size,
            device=where,
            out=folder,
            overwrite=overwrite,
            progress=watch,
            start=start,
        )

    if plan_:
        found = estimate_by_trial(measure, dataset, where)
        plan.show_plan(found)
        return found
    stderr = Console(stderr=True)
    with RunProgress(stderr, "broken") as progress:
        run = measure(dataset, out, progress)
    if not search:
        draw_accuracy(run)
        draw_sheet(run, dataset)
    for notice in (*run.store.manifest.notices, *run.summary.notices):
        stderr.print(f"notice: {notice}", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        print(run.summary.to_bytes().decode(), end="")
    else:
        _show(run, shared=workers_ > 1 or shard is not None)
    return run.folder


def _show(run: Run, shared: bool) -> None:
    from robustbench_c.cli.tables import print_run

    print_run(run.store, run.summary)
    if run.resumed and not shared:
        print("went on with the record that was there (--overwrite starts afresh)")
    print(f"record: {run.folder}")
    for name in ("corruption-accuracy", "corruption-sheet", "contact-sheet"):
        if (picture := run.folder / f"{name}.png").exists():
            print(f"picture: {picture}")


def _names(text: str | None, option: str, known: tuple[str, ...]) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in known:
            raise UsageError(f"{option}: no '{name}'; {did_you_mean(name, list(known))}")
    return names


def _severities(text: str) -> tuple[int, ...]:
    try:
        found = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        found = ()
    if not found or found[0] < 1 or found[-1] > 5:
        told = one_line(text, 80)
        raise UsageError(f"--severities '{told}' is no list of numbers from 1 to 5, like 1,3,5")
    return found
