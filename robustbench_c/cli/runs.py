"""`robust-runs`: list runs, show one, check one again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from robustbench_c.cli import options
from robustbench_c.cli.app import new_app, run_app
from robustbench_c.errors import CheckFailedError, UsageError

app = new_app()

_SHOWN = 20

Folder = Annotated[Path, typer.Argument(help="Folder of one run.")]


def main() -> None:
    """Run the command line."""
    run_app(app, "robust-runs")


@app.command()
def ls(root: Annotated[Path, typer.Argument(help="Folder of the runs.")] = Path("runs")) -> None:
    """List the runs in a folder."""
    from rich.table import Table

    from leaderboards.errors import one_line
    from leaderboards.listing import list_runs
    from robustbench_c.cli.console import wide_console
    from robustbench_c.cli.run_cells import HEADS, run_cells

    table = Table("run", *HEADS, box=None)
    found = list_runs(root)
    if not found:
        print(f"no runs in {root}")
        return
    for listed in found:
        if listed.manifest is None or listed.summary is None:
            table.add_row(
                one_line(listed.folder.name), "", listed.problem or "", *[""] * (len(HEADS) - 2)
            )
            continue
        name = one_line(listed.folder.name)
        table.add_row(name, *run_cells(listed.manifest, listed.summary))
    wide_console().print(table)


@app.command()
def status(
    run: Annotated[Path, typer.Argument(help="Folder of one run, or of a suite.")],
    every: Annotated[
        float | None,
        typer.Option("--watch", min=0.5, help="Show it again every so many seconds, till it ends."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show what a run found, how far it is and who is at it; of a suite's folder its jobs."""
    from leaderboards.errors import RecordError, one_line
    from leaderboards.store import MANIFEST, RunStore, is_run
    from leaderboards.watching import watch
    from robustbench_c.cli import watching
    from robustbench_c.cli.console import few, wide_console
    from robustbench_c.cli.flags import warn
    from robustbench_c.cli.tables import print_run
    from robustbench_c.suites.watching import is_suite

    if as_json and every is not None:
        raise UsageError("--json is printed once: leave out --watch")
    if is_suite(run):
        _show_suite(run, every, as_json)
        return
    if not is_run(run):
        raise RecordError(
            f"{run} is neither a run nor a suite's folder: it has no {MANIFEST} and no jobs"
        )
    store = RunStore.open(run)
    if every is None:
        state = watch(store)
    else:
        state = watching.follow(lambda: watch(store), watching.shown, every)
    if as_json:
        print(watching.as_json(state))
        return
    print_run(store, state.summary)
    warn(state.summary, wide_console())
    notices, more = few((*state.summary.notices, *store.manifest.notices), "notices")
    for line in (*(f"notice: {notice}" for notice in notices), *more):
        print(one_line(line, limit=3000))
    if every is None:
        wide_console().print(watching.shown(state))


def _show_suite(out: Path, every: float | None, as_json: bool) -> None:
    from robustbench_c.cli import watching
    from robustbench_c.cli.console import wide_console
    from robustbench_c.suites.watching import watch_suite

    if every is not None:
        watching.follow(lambda: watch_suite(out), watching.shown_suite, every)
    elif as_json:
        print(watching.suite_as_json(watch_suite(out)))
    else:
        wide_console().print(watching.shown_suite(watch_suite(out)))


@app.command()
def compare(first: Folder, second: Folder) -> None:
    """Compare two models by their runs on the same samples (McNemar's exact test)."""
    from rich.table import Table

    from leaderboards.errors import one_line
    from leaderboards.pairs import compare as compared
    from leaderboards.store import RunStore
    from robustbench_c.cli.console import wide_console

    stores = RunStore.open(first), RunStore.open(second)
    samples, pairs = compared(*stores)
    names = [one_line(store.manifest.model.name) for store in stores]
    table = Table(f"of {samples} samples", *names, *(f"only {n}" for n in names), "p (McNemar)")
    for pair in pairs:
        rates = (f"{right / samples:.2%}" for right in (pair.first, pair.second))
        only = (str(pair.only_first), str(pair.only_second))
        table.add_row(pair.rate, *rates, *only, f"{pair.p:.2g}")
    wide_console().print(table)


@app.command()
def verify(
    run: Folder,
    model: options.Model = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    label_column: options.LabelColumn = None,
    box: options.Box = None,
    arch: options.Arch = None,
    arch_args: options.ArchArgs = None,
    mean: options.Mean = None,
    std: options.Std = None,
    trust_checkpoint: options.Trust = False,
    device: options.Device = "auto",
    prove: Annotated[
        bool, typer.Option("--prove", help="Prove each certified sample again.")
    ] = False,
) -> None:
    """Check a run's files and replay its stored adversarial examples (exit code 7 if one fails).

    Model and data are found by the names in the record where they are in the zoo and registry;
    their hashes have to be those of the record.
    """
    from leaderboards.store import RunStore
    from robustbench_c import zoo
    from robustbench_c.data import names
    from robustbench_c.evaluation.smoothing import is_smoothed
    from robustbench_c.evaluation.verify import verify as check

    store = RunStore.open(run)
    manifest = store.manifest
    if is_smoothed(store):
        _end(run, store.verify_bytes())
        print(
            "radii follow from the votes; to count these again, run robust-smooth with another "
            "--out: the content hashes have to be the same"
        )
        return
    draws = manifest.model.draws
    own = manifest.model.name if draws is None else draws.base_name
    if model is None and own not in zoo.names():
        raise UsageError(f"'{own}' is not in the zoo: give its file by --model")
    if data is None and manifest.data.name not in names():
        raise UsageError(f"'{manifest.data.name}' is not a known set: give its file by --data")
    name = model or own
    card = options.card_of(name)
    dataset = options.load_data(
        data or manifest.data.name, manifest.data.split, data_dir, label_column, box
    )
    # the device of the record, unless another is asked for: others round differently
    where = "cpu" if device == "auto" and manifest.device == "cpu" else options.pick_device(device)
    loaded = options.load_model(
        name, card, dataset, where, arch, arch_args, mean, std, trust_checkpoint
    )
    result = check(store, loaded, dataset, where, prove)
    if not result.kept and result.broken:
        print(
            f"the {result.broken} adversarial examples were not stored, so they were not replayed "
            "(--save-adversarial stores them)"
        )
    else:
        print(f"replayed {result.replayed} of {result.broken} adversarial examples")
    if prove:
        print(f"proved {result.proved} of {result.certified} certificates again")
    elif result.certified:
        print(f"{result.certified} certificates were not proved again (--prove does)")
    _end(run, result.problems)


def _end(run: Path, problems: Sequence[str]) -> None:
    """Show what does not hold, and fail if there is anything."""
    from leaderboards.errors import one_line

    for problem in problems[:_SHOWN]:
        print(f"problem: {one_line(problem)}")
    if problems:
        raise CheckFailedError(f"{run}: {len(problems)} problems, the first: {problems[0]}")
    print("everything that was checked holds")
