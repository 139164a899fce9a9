"""`robust-smooth`: what is certain of a smoothed classifier, sample by sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_c.cli import options, plan, workers
from robustbench_c.cli.app import new_app, run_app
from robustbench_c.errors import UsageError

if TYPE_CHECKING:
    from leaderboards.rates import Rate
    from robustbench_c.cli.run_progress import RunProgress
    from robustbench_c.data import Dataset
    from robustbench_c.evaluation import Run
    from robustbench_c.evaluation.smoothed_result import SmoothedResult

app = new_app()


def main() -> None:
    """Run the command line."""
    run_app(
        app,
        "robust-smooth",
        stopped="stopped; the same command goes on after the last finished shard",
    )


@app.command()
def smooth(
    context: typer.Context,
    model: options.Model = None,
    sigma: Annotated[
        float | None, typer.Option("--smooth", help="Standard deviation of the noise.")
    ] = None,
    n0: Annotated[int, typer.Option("--smooth-n0", help="Draws that select a class.")] = 100,
    n: Annotated[
        int, typer.Option("--smooth-n", help="Draws that bound its probability.")
    ] = 10_000,
    alpha: Annotated[
        float, typer.Option("--smooth-alpha", help="Probability of failure, for each sample.")
    ] = 0.001,
    eps: Annotated[
        float, typer.Option(help="L2 radius of the record's verdict; 0: right at the sample.")
    ] = 0.0,
    data: options.Data = None,
    samples: Annotated[int | None, typer.Option(help="The first N samples [all].")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**53, help="Seed of all noise.")] = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000_000, help="Most copies in a pass; changes no vote [measured]."
        ),
    ] = None,
    device: options.Device = "auto",
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    workers_: workers.Workers = 1,
    shard: workers.Shard = None,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> object:
    """Certify the majority vote of a model under Gaussian noise (randomised smoothing)."""
    if model is None:
        raise UsageError("give a --model (robust-eval --list shows those of the zoo)")
    if sigma is None:
        raise UsageError("give --smooth SIGMA, such as --smooth 0.25: that noise makes the subject")
    start = workers.start_of(shard)
    workers.refuse_overwrite(overwrite, workers_, shard)
    context.with_resource(workers.beside(workers_, shard))
    from rich.console import Console

    from certify.smoothing import SmoothingConfig
    from robustbench_c.cli.run_progress import RunProgress
    from robustbench_c.evaluation import smoothing
    from robustbench_c.evaluation.smoothed_picture import draw_certified_accuracy
    from robustbench_c.evaluation.smoothed_result import read_result
    from robustbench_c.evaluation.trial import estimate_by_trial

    config = SmoothingConfig(sigma, n0, n, alpha)
    card = options.card_of(model)
    if data is None:
        data = options.data_of(card)
    dataset = options.load_data(data, split, data_dir, label_column, box)
    if samples is not None:
        dataset = dataset.head(samples)
    where = options.pick_device(device)
    loaded = options.load_model(
        model, card, dataset, where, arch, arch_args, mean, std, trust_checkpoint
    )

    def measure(part: Dataset, folder: Path, watch: RunProgress | None = None) -> Run:
        return smoothing.smooth(
            loaded,
            part,
            config,
            eps=eps,
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
    with RunProgress(stderr, "certified") as progress:
        run = measure(dataset, out, progress)
    result = read_result(run.store)
    draw_certified_accuracy(run.folder, result, loaded.name, dataset.name)
    for notice in (*run.store.manifest.notices, *run.summary.notices):
        stderr.print(f"notice: {notice}", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        _print_json(run, result)
    else:
        _print_table(run, result, shared=workers_ > 1 or shard is not None)
    return run.folder


def _print_table(run: Run, result: SmoothedResult, shared: bool) -> None:
    from rich.table import Table

    from leaderboards.errors import one_line
    from robustbench_c.cli.console import wide_console
    from robustbench_c.cli.tables import percent
    from robustbench_c.evaluation.smoothed_picture import NAME

    manifest, config = run.store.manifest, result.config
    print(one_line(f"{manifest.model.name} on {manifest.data.name}"))
    table = Table()
    for name, justify in (("smoothed classifier", "left"), ("share", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("95% interval")
    table.add_column("samples", justify="right")
    table.add_row("right without attack", *percent(result.right))
    table.add_row("abstained", *percent(result.abstained))
    table.add_row("wrong", *percent(result.wrong))
    if result.failed.k:
        table.add_row("error", *percent(result.failed))
    table.add_section()
    for radius in result.reported_radii():
        table.add_row(f"certified, L2 radius {radius:g}", *percent(result.certified(radius)))
    wide_console().print(table)
    beyond = [r for r in result.reported_radii() if r >= result.largest_radius]
    for radius in beyond[:1]:
        needed = result.draws_needed(radius)
        print(
            f"{config.n} draws certify radii up to {result.largest_radius:.4g} even if all agree; "
            + (f"{radius:g} takes at least {needed}" if needed else f"{radius:g} takes more noise")
        )
    print(
        f"certified: with probability at least {1 - config.alpha:g} for each sample (not for all "
        "at once), and of the smoothed classifier alone, not of the model inside it"
    )
    print(f"cost: {run.summary.cost.forwards} forward passes, {run.summary.cost.seconds:.1f} s")
    if run.resumed and not shared:
        print("went on with the record that was there (--overwrite starts afresh)")
    print(f"record: {run.folder}")
    print(f"picture: {run.folder / NAME}.png")


def _print_json(run: Run, result: SmoothedResult) -> None:
    import json

    def shown(rate: Rate) -> dict[str, object]:
        return rate.model_dump(mode="json")

    config = result.config
    content = {
        "subject": run.store.manifest.model.name,
        "data": run.store.manifest.data.name,
        "folder": str(run.folder),
        "sigma": config.sigma,
        "n0": config.n0,
        "n": config.n,
        "alpha_per_sample": config.alpha,
        "largest_radius": result.largest_radius,
        "right": shown(result.right),
        "abstained": shown(result.abstained),
        "wrong": shown(result.wrong),
        "error": shown(result.failed),
        "certified": [
            {"radius": radius} | shown(result.certified(radius))
            for radius in result.reported_radii()
        ],
        "summary": run.summary.model_dump(mode="json"),
    }
    print(json.dumps(content, indent=2))
