"""`robust-eval`: what an attacker can break of a model, and what none can, sample by sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_c.cli import budgets, flags, options, plan, suite, workers
from robustbench_c.cli import eot as random_models
from robustbench_c.cli import explain as explaining
from robustbench_c.cli import minimal as nearest
from robustbench_c.cli import resume as resuming
from robustbench_c.cli.app import new_app, run_app
from robustbench_c.cli.attacks import NONE, attack_of, check_attack, check_settings
from robustbench_c.cli.known import show_known, show_versions
from robustbench_c.cli.threats import threat_of
from robustbench_c.errors import UsageError, one_line

if TYPE_CHECKING:
    from attacks.registry import AttackConfig
    from attacks.suites import Suite
    from robustbench_c.evaluation import Run
    from robustbench_c.zoo.cards import Card

app = new_app()

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
    attack: Annotated[
        str, typer.Option(help="pgd, auto, foolbox:NAME, ... (--list); none: proofs alone.")
    ] = "pgd",
    minimal: nearest.Minimal = False,
    certify: Annotated[
        str | None,
        typer.Option(help="Prove by ibp, crown-ibp, crown, alpha-crown, complete or cascade."),
    ] = None,
    certify_iterations: Annotated[
        int, typer.Option(min=1, max=_MOST, help="Slope steps of alpha-crown.")
    ] = 20,
    certify_subproblems: Annotated[
        int, typer.Option(min=1, max=10**9, help="Subproblems of complete, for each sample.")
    ] = 2000,
    certify_seconds: Annotated[
        float | None, typer.Option(help="Time of a proof, for each sample; not reproducible.")
    ] = None,
    radius: Annotated[
        bool, typer.Option("--radius", help="Look for the certified radius of every sample.")
    ] = False,
    cross_check: Annotated[
        bool, typer.Option("--cross-check", help="Compare the proofs with auto_LiRPA's.")
    ] = False,
    explain: explaining.Kind = None,
    explain_of: explaining.Of = "logit",
    explain_steps: explaining.Steps = None,
    explain_sigma: explaining.Sigma = None,
    explain_method: explaining.Methods = "crown-interval",
    gamma: explaining.Gamma = None,
    gamma_absolute: explaining.GammaAbsolute = False,
    measure: explaining.Measure = None,
    delta: explaining.Delta = None,
    min_cosine: explaining.MinCosine = None,
    relative: explaining.Relative = False,
    top_k: explaining.TopK = None,
    features: explaining.Features = None,
    explain_eps_curve: explaining.EpsCurve = None,
    explain_lipschitz: explaining.Lipschitz = False,
    explain_lipschitz_budget: explaining.LipschitzBudget = None,
    monotone: explaining.Monotone = None,
    signed: explaining.Signed = False,
    explain_aim: explaining.Aim = None,
    explain_surrogate: explaining.Surrogate = None,
    data: options.Data = None,
    samples: Annotated[int | None, typer.Option(help="The first N samples [all].")] = None,
    norm: Annotated[str | None, typer.Option(help="linf, l2, l1 or l0 [the card's].")] = None,
    eps: Annotated[
        float | None, typer.Option(help="Radius; of l0: features that may change [the card's].")
    ] = None,
    eps_unit: Annotated[
        str, typer.Option(help="input: the data's units; range: of each feature's range.")
    ] = "input",
    immutable: Annotated[
        str | None,
        typer.Option(help="Features that may not change: a,b,c, or none [as the data say]."),
    ] = None,
    steps: Annotated[
        int,
        typer.Option(
            max=_MOST,
            help="Gradient steps of one restart [the attack's; 40 of pgd; 50 with --explain].",
            show_default=False,
        ),
    ] = 40,
    restarts: Annotated[
        int,
        typer.Option(
            max=_MOST,
            help="Restarts [the attack's; 5 of pgd; 1 with --explain].",
            show_default=False,
        ),
    ] = 5,
    step_size: Annotated[
        float | None, typer.Option(help="Length of a step [eps/4; eps/2 with --explain].")
    ] = None,
    loss: Annotated[
        str,
        typer.Option(
            help="ce, margin, dlr or probability-margin [the attack's; ce of pgd].",
            show_default=False,
        ),
    ] = "ce",
    goal: Annotated[str, typer.Option(help="untargeted or multi-targeted.")] = "untargeted",
    targets: Annotated[
        int, typer.Option(max=_MOST, help="Other classes to aim at by turns; not of pgd; 0: none.")
    ] = 0,
    set_: Annotated[
        list[str], typer.Option("--set", help="A setting of the attack, KEY=VALUE; repeatable.")
    ] = [],  # noqa: B006  # typer copies it
    max_queries: budgets.Queries = None,
    max_seconds: budgets.Seconds = None,
    eot: random_models.Draws = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Search with gradients by torch.compile.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**53, help="Seed of all noise.")] = 0,
    batch_size: Annotated[
        str, typer.Option(help="Most samples in a pass; changes no verdict.")
    ] = "auto",
    max_memory: options.MaxMemory = None,
    device: options.Device = "auto",
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    resume: resuming.Resume = None,
    workers_: workers.Workers = 1,
    shard: workers.Shard = None,
    save_adversarial: Annotated[
        bool, typer.Option("--save-adversarial", help="Keep every adversarial example.")
    ] = False,
    no_diagnose: flags.NoDiagnose = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Run again although the record is there.")
    ] = False,
    property_: Annotated[
        Path | None, typer.Option("--property", help="Ask a .vnnlib property of an .onnx model.")
    ] = None,
    instances: Annotated[
        Path | None, typer.Option(help="Ask all of an instances.csv: network,property,timeout.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Verdicts of others to compare with, a .csv.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for each property.")] = None,
    split: options.Split = "test",
    data_dir: options.DataDir = None,
    label_column: options.LabelColumn = None,
    box: options.Box = None,
    arch: options.Arch = None,
    arch_args: options.ArchArgs = None,
    mean: options.Mean = None,
    std: options.Std = None,
    trust_checkpoint: options.Trust = False,
    suite_: suite.Name = None,
    only: suite.Only = [],  # noqa: B006  # typer copies it
    plan_: plan.Plan = False,
    executor: suite.ExecutorName = None,
    slurm: suite.Slurm = [],  # noqa: B006  # typer copies it
    no_wait: suite.NoWait = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Show models, data, protocols.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Show versions.")] = False,
) -> object:
    """Attack a model and prove what holds; verdicts, table and record for every sample."""
    if list_ or version:
        show_known() if list_ else show_versions()
        return None
    if suite_ is not None:
        suite.run_suite(context)
        return None
    suite.refuse_own_options(context)
    if property_ or instances or reference or timeout is not None:
        from robustbench_c.cli.property import answer

        answer(
            context, model, property_, instances, reference, timeout, out, seed, overwrite, as_json
        )
        return None
    attack, minimal = nearest.minimal_attack(context, attack, minimal)
    check_attack(attack)
    if eps_unit not in ("input", "range"):
        raise UsageError(f"--eps-unit '{eps_unit}' is neither input nor range")
    random_models.check_draws(context.params)
    start, room = workers.start_of(shard), options.room_of(context)
    resuming.check_resume(context)
    workers.refuse_overwrite(overwrite, workers_, shard)
    if explain is not None:
        context.with_resource(workers.beside(workers_, shard))
        return explaining.evaluate_explanations(context, _batch_size(batch_size))
    explaining.refuse_own_options(context)
    if model is None:
        raise UsageError("give a --model (robust-eval --list shows those of the zoo)")
    if attack == NONE and certify is None and protocol is None:
        raise UsageError(
            "neither an attack nor a certificate: leave out --attack, or add --certify"
        )
    check_settings(context)
    if compile and attack == NONE:
        raise UsageError("--compile is about attacks, and --attack none is none")
    budgets.check_limits(context)
    most = _batch_size(batch_size)
    if protocol is not None:
        from robustbench_c.evaluation.protocols import load_protocol

        named = load_protocol(protocol)
        fixed = named.model_dump(exclude={"name", "description"})
        fixed |= dict.fromkeys(
            ("eps_unit", "immutable", "certify_seconds", "compile", *budgets.LIMITS)
        )
        given = [key for key in fixed if options.is_given(context, key)]
        given += ["attack"] if attack != "pgd" else []
        given += [key for key in ("targets", "set_") if options.is_given(context, key)]
        if given:
            option = given[0].strip("_").replace("_", "-")
            raise UsageError(f"--protocol {protocol} fixes --{option}: leave one of them out")
        data, norm, eps = named.data, named.norm, named.eps
        steps, restarts, step_size = named.steps, named.restarts, named.step_size
        loss, goal, protocol = named.loss, named.goal, named.name
        certify, radius = named.certify, named.radius
        certify_iterations = named.certify_iterations
        certify_subproblems = named.certify_subproblems
    if certify is None and (radius or cross_check):
        raise UsageError(
            f"--{'radius' if radius else 'cross-check'} is about proofs: add --certify"
        )

    context.with_resource(workers.beside(workers_, shard))
    from rich.console import Console

    from attacks.pgd import PGDConfig
    from robustbench_c import evaluation
    from robustbench_c.cli.run_progress import RunProgress
    from robustbench_c.evaluation.certifying import Budget, CertifyConfig
    from robustbench_c.evaluation.estimate import estimate

    proof = certify and CertifyConfig(
        certify,
        Budget(certify_iterations, certify_subproblems, certify_seconds),
        radius,
        cross_check,
    )
    config: AttackConfig | Suite | None
    if protocol is not None:
        config = PGDConfig(
            steps=steps,
            restarts=restarts,
            step_size=step_size,
            loss=loss,  # type: ignore[arg-type]
            goal=goal,  # type: ignore[arg-type]
        )
    else:
        config = None if attack == NONE else attack_of(context, attack, set_)
        config = nearest.for_nearest(config) if config is not None and minimal else config
    card = options.card_of(model)
    dataset = options.load_data(_data_name(data, card), split, data_dir, label_column, box)
    if samples is not None:
        dataset = dataset.head(samples)
    where = options.pick_device(device)
    threat = threat_of(dataset, card, norm, eps, eps_unit, immutable)
    loaded = options.load_model(
        model, card, dataset, where, arch, arch_args, mean, std, trust_checkpoint
    )
    subject = random_models.averaged_if(loaded, eot, seed)
    if plan_:
        found = estimate(
            subject,
            dataset,
            threat=threat,
            attack=config or "none",
            certify=proof or None,
            budget=budgets.budget_of(context),
            batch_size=most,
            max_memory=room,
            device=where,
            diagnose=not no_diagnose,
        )
        plan.show_plan(found)
        return found
    stderr = Console(stderr=True)
    with RunProgress(stderr) as progress:
        run = evaluation.evaluate(
            subject,
            dataset,
            threat=threat,
            attack=config or "none",
            certify=proof or None,
            budget=budgets.budget_of(context),
            seed=seed,
            batch_size=most,
            max_memory=room,
            device=where,
            out=out,
            resume=resume,
            save_adversarial=save_adversarial,
            overwrite=overwrite,
            protocol_name=protocol,
            diagnose=not no_diagnose,
            progress=progress,
            start=start,
            compile=compile,
        )
    for notice in (*run.store.manifest.notices, *run.summary.notices):
        stderr.print(f"notice: {notice}", highlight=False, markup=False, soft_wrap=True)
    flags.warn(run.summary, stderr)
    if as_json:
        print(run.summary.to_bytes().decode(), end="")
    else:
        _show(run, shared=workers_ > 1 or shard is not None)
    return run.folder


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= number <= _MOST:
        raise UsageError(
            f"--batch-size '{one_line(text, 80)}' is neither auto nor a number from 1 to {_MOST}"
        )
    return number


def _data_name(data: str | None, card: Card | None) -> str:
    if data is not None:
        return data
    if card is None or card.data is None:
        raise UsageError("give --data: the model has no card that names its own")
    return _SHIPPED.get(card.data, card.data)


def _show(run: Run, shared: bool) -> None:
    from robustbench_c.cli.proof_tables import print_cross_check
    from robustbench_c.cli.tables import print_run

    print_run(run.store, run.summary)
    if run.cross_check is not None:
        print_cross_check(run.cross_check)
    if run.resumed and not shared:
        print("went on with the record that was there (--overwrite starts afresh)")
    print(f"record: {run.folder}")
    for name in ("certified-radius.png", "accuracy-curve.png", "contact-sheet.png"):
        if (picture := run.folder / name).exists():
            print(f"pictures: {picture}")
