"""`robust-eval --suite`: many runs from one file, by any number of workers."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_c.cli import options, workers
from robustbench_c.cli.app import as_line
from robustbench_c.errors import HarnessError, ModelError, RunError, UsageError, did_you_mean

if TYPE_CHECKING:
    from rich.text import Text

    from robustbench_c.evaluation.estimate import Estimate
    from robustbench_c.executors import Executor
    from robustbench_c.suites import Job, JobLog, JobRecord, Suite

Name = Annotated[
    str | None,
    typer.Option("--suite", help="Do all runs of a suite: zoo, or a .toml (docs/suites.md)."),
]
Only = Annotated[
    list[str],
    typer.Option("--only", help="Of a suite: the jobs with this word; repeatable."),
]
ExecutorName = Annotated[
    str | None,
    typer.Option(
        "--executor", help="Of a suite: inline, local or slurm [local with --workers, else inline]."
    ),
]
Slurm = Annotated[
    list[str],
    typer.Option(
        "--slurm",
        help="An option of sbatch for each worker, KEY=VALUE; repeatable (docs/clusters.md).",
    ),
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Of --executor slurm: submit the workers, and end.")
]
_GOES_WITH = (
    *("suite_", "only", "plan_", "executor", "slurm", "no_wait"),
    *("out", "workers_", "shard", "as_json", "list_", "version"),
)
_EXECUTORS = ("inline", "local", "slurm")


def refuse_own_options(context: typer.Context) -> None:
    """Raise UsageError if an option of suites is given without `--suite`."""
    if given := options.given_of(context, ("only", "executor", "slurm", "no_wait")):
        raise UsageError(f"{given} is about suites: add --suite")


def run_suite(context: typer.Context) -> None:
    """Do what the options of `robust-eval --suite` say, and show what came of it.

    Raises:
        UsageError: No such suite, or options that do not go with one.
        HarnessError: Jobs failed; its exit code is that of the first.
    """
    from robustbench_c.suites import JobLog, load_suite
    from robustbench_c.suites.options import MACHINE

    given: dict[str, Any] = context.params
    others = tuple(name for name in given if name not in (*_GOES_WITH, *MACHINE))
    if foreign := options.given_of(context, others):
        raise UsageError(f"{foreign.rstrip('-')} does not go with --suite: leave it out")
    suite = load_suite(given["suite_"])
    jobs = suite.only(tuple(given["only"]))
    out: Path = given["out"]
    shard, number = given["shard"], given["workers_"]
    start = workers.start_of(shard)
    if shard is not None and number > 1:
        raise UsageError("--shard is for one process: leave out --workers, or --shard")
    log = JobLog(out, start)
    executor = _executor(context)
    _set_threads(suite.threads)
    machine = _machine_words(context)
    if given["plan_"]:
        with options.resident_models():
            _show_jobs(suite, jobs, log, _estimate_in(suite, out, machine))
        return

    def here(shard: str | None) -> int:
        _work(suite, jobs, out, shard or given["shard"], machine)
        return 0

    work = workers.this_command()
    ended = executor.run(work, number, here, _notice)
    if ended:  # else they are not waited for
        _show(suite, jobs, log, out, given["as_json"])


def _set_threads(number: int) -> None:
    """Fix the number of CPU threads, of this process and of those it starts."""
    os.environ["OMP_NUM_THREADS"] = str(number)
    if "torch" in sys.modules:  # which has read the variable
        import torch

        torch.set_num_threads(number)


def _notice(line: str) -> None:
    print(f"notice: {line}", file=sys.stderr, flush=True)


def _executor(context: typer.Context) -> Executor:
    from robustbench_c.executors import InlineExecutor, LocalExecutor
    from robustbench_c.executors.slurm import SlurmExecutor
    from robustbench_c.executors.slurm_options import slurm_options

    given: dict[str, Any] = context.params
    name = given["executor"] or ("local" if given["workers_"] > 1 else "inline")
    if name not in _EXECUTORS:
        raise UsageError(f"no executor '{name}'; {did_you_mean(name, list(_EXECUTORS))}")
    if name == "slurm":
        if given["shard"] is not None:
            raise UsageError("--executor slurm starts all shards: leave out --shard")
        return SlurmExecutor(given["out"], slurm_options(given["slurm"]), not given["no_wait"])
    if foreign := options.given_of(context, ("slurm", "no_wait")):
        raise UsageError(f"{foreign} is about jobs of a cluster: add --executor slurm")
    if name == "inline" and given["workers_"] > 1:
        raise UsageError("--executor inline is one worker: leave out --workers, or take local")
    return InlineExecutor() if name == "inline" else LocalExecutor()


def _machine_words(context: typer.Context) -> tuple[tuple[str, str], ...]:
    """What was said of the machine, for every job that can be told: (key, word)."""
    from robustbench_c.suites.options import MACHINE

    found = []
    for name in MACHINE:
        if options.is_given(context, name):
            key, value = name.strip("_").replace("_", "-"), context.params[name]
            found.append((key, f"--{key}" if value is True else f"--{key}={value}"))
    return tuple(found)


def _work(
    suite: Suite,
    jobs: Sequence[Job],
    out: Path,
    shard: str | None,
    machine: tuple[tuple[str, str], ...],
) -> None:
    """Be one worker."""
    from robustbench_c.suites import JobLog, Worker

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    log = JobLog(out, workers.start_of(shard))
    with options.resident_models():
        trained = [job for job in suite.jobs if job.trains]
        execute = _execute_in(suite, out, shard, machine)
        Worker(jobs, log, execute, as_line, say, trained).run()


def _execute_in(
    suite: Suite, out: Path, shard: str | None, machine: tuple[tuple[str, str], ...]
) -> Callable[[Job], str]:
    """Return what does a job by its command's own function, in this process."""
    from robustbench_c.cli.programs import app_of

    words_of = _words_in(suite, out, machine)

    def execute(job: Job) -> str:
        command, words = typer.main.get_command(app_of(job.program)), words_of(job)
        if job.trains:
            folder = out / job.folder
            if not all((out / path).exists() for path in job.made):
                with redirect_stdout(io.StringIO()):
                    command.main(
                        [*words, f"--out={folder}", "--resume"], job.program, standalone_mode=False
                    )
            return job.folder
        words.append(f"--out={out}")
        if shard is not None:
            words.append(f"--shard={shard}")
        with redirect_stdout(io.StringIO()):
            made = command.main(words, job.program, standalone_mode=False)
        return str(Path(made).relative_to(out))

    return execute


def _words_in(
    suite: Suite, out: Path, machine: tuple[tuple[str, str], ...]
) -> Callable[[Job], list[str]]:
    """Return what gives a job's command line here: where its model lies, and the machine's part."""
    from robustbench_c.suites.job import TRAINED
    from robustbench_c.suites.options import options_of

    trained = {job.name: job for job in suite.jobs if job.trains}

    def words(job: Job) -> list[str]:
        known, own = options_of(job.program), list(job.arguments)
        if (name := job.asks_for) is not None:
            made = [out / path for path in trained[name].made]
            if not all(path.exists() for path in made):
                raise ModelError(f"'{name}' is not trained, by another job of the suite")
            own[own.index(f"--model={TRAINED}{name}")] = f"--model={made[0]}"
        return own + [word for key, word in machine if key in known.of_machine]

    return words


def _estimate_in(
    suite: Suite, out: Path, machine: tuple[tuple[str, str], ...]
) -> Callable[[Job], Estimate]:
    """Return what estimates a job by its command's own `--plan`, in this process."""
    from robustbench_c.cli.programs import app_of

    words_of = _words_in(suite, out, machine)

    def estimate(job: Job) -> Estimate:
        command = typer.main.get_command(app_of(job.program))
        with redirect_stdout(io.StringIO()):
            found: Estimate = command.main(
                [*words_of(job), "--plan"], job.program, standalone_mode=False
            )
        return found

    return estimate


def _state(job: Job, log: JobLog) -> str:
    """`left`, `begun`, `failed`, or `done`: then what it made is there, and whole."""
    record = log.read(job.id)
    if record is None or record.command != str(job):
        return "left"
    return "begun" if record.state == "done" and not log.holds(record) else record.state


def _show_jobs(
    suite: Suite, jobs: Sequence[Job], log: JobLog, estimate: Callable[[Job], Estimate]
) -> None:
    """Print the jobs with what each is thought to take, by trying a little of it here."""
    from rich.table import Table

    from leaderboards.report.words import duration
    from robustbench_c.cli.console import wide_console
    from robustbench_c.cli.plan import in_bytes

    table = Table("job", "state", "likely", "at most", "memory", "command", box=None)
    states, likely, most, memory, unknown = [], 0.0, 0.0, 0, 0
    told: set[str] = set()
    for number, job in enumerate(jobs, 1):
        state = _state(job, log)
        states.append(state)
        cells = ("", "", "")
        if state != "done":
            print(f"[{number}/{len(jobs)}] {job}", file=sys.stderr, flush=True)
            try:
                found = estimate(job)
                cells = duration(found.likely), duration(found.most), in_bytes(found.memory)
                likely, most = likely + found.likely, most + found.most
                memory = max(memory, found.memory)
            except Exception as error:
                if (shown := as_line(error)) is None:
                    raise
                unknown += 1
                if shown[0] not in told:
                    print(f"notice: {shown[0]}", file=sys.stderr)
                told.add(shown[0])
        table.add_row(str(number), state, *cells, str(job))
    wide_console().print(table, highlight=False)
    print(f"suite {suite.name}: {len(jobs)} jobs, {states.count('done')} of them done")
    if likely:
        left = f"; {unknown} more could not be tried" if unknown else ""
        print(
            f"left: about {duration(likely)} of one worker here with {suite.threads} thread"
            f"{'s' * (suite.threads > 1)} (at most {duration(most)}), up to {in_bytes(memory)} of "
            f"memory for each worker{left}"
        )


def _show(suite: Suite, jobs: Sequence[Job], log: JobLog, out: Path, as_json: bool) -> None:
    """Show what came of the jobs.

    Raises:
        HarnessError: Some failed.
    """
    import json

    records = [log.read(job.id) for job in jobs]
    left = sum(_state(job, log) not in ("done", "failed") for job in jobs)
    if as_json:
        found = [r and r.model_dump(mode="json", exclude={"format", "attempt"}) for r in records]
        print(json.dumps(found, indent=1))
    else:
        _print_table(jobs, records, out)
    failed = [record for record in records if record is not None and record.state == "failed"]
    if failed:
        # a contradiction is worse than whatever else went wrong
        first = max(failed, key=lambda record: record.exit_code == 7)
        error = HarnessError(
            f"{len(failed)} of {len(jobs)} jobs of the suite {suite.name} failed, the first: "
            f"{first.error}"
        )
        error.exit_code = first.exit_code or 1
        raise error
    if left:
        raise RunError(f"{left} of {len(jobs)} jobs are not done: the same command goes on")


def _print_table(jobs: Sequence[Job], records: Sequence[JobRecord | None], out: Path) -> None:
    from rich.table import Table

    from leaderboards.errors import RecordError, one_line
    from leaderboards.store import RunStore
    from leaderboards.summary import summarise
    from robustbench_c.cli.console import wide_console
    from robustbench_c.cli.run_cells import HEADS, run_cells

    table = Table("job", "result", *HEADS, "seconds", box=None)
    for number, (job, record) in enumerate(zip(jobs, records, strict=True), 1):
        what: str = record.state if record is not None else "left"
        cells: tuple[str | Text, ...] = ("",) * len(HEADS)
        if record is not None and record.state == "done" and record.result is not None:
            what = one_line(record.result)
            if not job.trains:
                try:
                    store = RunStore.open(out / record.result)
                    cells = run_cells(store.manifest, summarise(store))
                except RecordError as error:
                    what = one_line(str(error), 200)
        if record is not None and record.state == "failed":
            what = f"failed: {one_line(record.error or '', 200)}"
        seconds = f"{record.seconds:.1f}" if record is not None and record.seconds else ""
        table.add_row(str(number), what, *cells, seconds)
    wide_console().print(table, highlight=False)
