"""`robust-eval --explain`: how far an attacker can bend explanations, and how far none can."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_c.cli import options, plan, workers
from robustbench_c.cli.threats import threat_of
from robustbench_c.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from attacks.explanation_config import Aim as AimName
    from attacks.explanation_measures import Criterion
    from attacks.explanations import Explanation
    from robustbench_c.data import Dataset
    from robustbench_c.evaluation import ExplainConfig, Run
    from robustbench_c.evaluation.estimate import Estimate

Kind = Annotated[
    str | None,
    typer.Option(
        "--explain",
        help="Bend and prove explanations instead of predictions: gradient, absolute-gradient, "
        "input-x-gradient, integrated-gradients or smoothgrad.",
    ),
]
Of = Annotated[str, typer.Option("--explain-of", help="Gradient of logit, loss or margin.")]
Steps = Annotated[
    int | None,
    typer.Option("--explain-steps", help="Points of the path, or draws of smoothgrad [10]."),
]
Sigma = Annotated[
    float | None, typer.Option("--explain-sigma", help="Deviation of smoothgrad's noise [0.05].")
]
Methods = Annotated[
    str,
    typer.Option(
        "--explain-method", help="interval, crown-interval, linear, several of them a,b, or none."
    ),
]
Gamma = Annotated[
    float | None,
    typer.Option(help="Weights may change by this share of each; eps is 0 unless given."),
]
GammaAbsolute = Annotated[
    bool, typer.Option("--gamma-absolute", help="Weights may change by --gamma itself.")
]
Delta = Annotated[
    float | None,
    typer.Option(help="Largest distance that is fine, of --measure [linf, without one]."),
]
MinCosine = Annotated[
    float | None, typer.Option(help="Least cosine similarity that is fine [0.9].")
]
Measure = Annotated[
    str | None,
    typer.Option(
        help="How far an explanation is bent: linf, l2, l1, mean, cosine, top-k, into-top-k or "
        "out-of-top-k [cosine]."
    ),
]
Relative = Annotated[
    bool, typer.Option("--relative", help="A norm in parts of the clean explanation's own.")
]
TopK = Annotated[
    int | None, typer.Option("--top-k", help="Entries that count as most important [5].")
]
Signed = Annotated[
    bool, typer.Option("--signed", help="Rank entries by value, not by absolute value.")
]
Aim = Annotated[
    str | None,
    typer.Option(
        "--explain-aim",
        help="What the attack raises: measure, or mass-centre, how far the center moves [measure].",
    ),
]
Surrogate = Annotated[
    str | None,
    typer.Option(
        "--explain-surrogate",
        help="Sharpness of the softplus that stands for ReLU while searching, or none [50].",
    ),
]
Features = Annotated[
    str | None,
    typer.Option(help="Those that may not get into, or out of, the top k: a,b [protected]."),
]
Lipschitz = Annotated[
    bool, typer.Option("--explain-lipschitz", help="Bound each logit's local Lipschitz constant.")
]
LipschitzBudget = Annotated[
    int | None,
    typer.Option(
        "--explain-lipschitz-budget",
        help="Subproblems of branch and bound for each sample and logit [1].",
    ),
]
Monotone = Annotated[
    str | None,
    typer.Option(help="Prove that the explained score rises, or falls, with these features: a,b."),
]
EpsCurve = Annotated[
    str | None,
    typer.Option(
        "--explain-eps-curve", help="Draw attack and certificate against these eps as well: a,b,c."
    ),
]

_OWN = (
    *("explain_of", "explain_steps", "explain_sigma", "explain_method", "gamma"),
    *("gamma_absolute", "delta", "min_cosine", "measure", "relative", "top_k", "features"),
    *("explain_eps_curve", "explain_lipschitz", "explain_lipschitz_budget", "monotone"),
    *("signed", "explain_aim", "explain_surrogate"),
)
_FOREIGN = (
    *("protocol", "certify", "certify_iterations", "certify_subproblems", "certify_seconds"),
    *("radius", "cross_check", "loss", "goal", "no_diagnose", "max_queries", "max_seconds"),
    "compile",
)
_DRAWS = ("integrated-gradients", "smoothgrad")
_RANKED = ("top-k", "into-top-k", "out-of-top-k")
_NORMS = ("linf", "l2", "l1", "mean")


def refuse_own_options(context: typer.Context) -> None:
    """Raise UsageError if an option of explanations is given without `--explain`."""
    if given := options.given_of(context, _OWN):
        raise UsageError(f"{given} is about explanations: add --explain gradient, say")


def evaluate_explanations(context: typer.Context, batch_size: int | None) -> Path | Estimate:
    """Run what the options of `robust-eval --explain` say, and show it; returns its folder."""
    from rich.console import Console

    from robustbench_c import evaluation
    from robustbench_c.cli.run_progress import RunProgress
    from robustbench_c.evaluation.estimate import estimate_explanations
    from robustbench_c.evaluation.explained_curve import draw_curve, draw_eps_curve
    from robustbench_c.evaluation.explained_pictures import draw_samples
    from robustbench_c.evaluation.explained_samples import eps_curve

    given: dict[str, Any] = context.params
    if foreign := options.given_of(context, _FOREIGN):
        raise UsageError(f"{foreign} is about predictions: it does not go with --explain")
    if given["model"] is None:
        raise UsageError("give a --model (robust-eval --list shows those of the zoo)")
    room = options.room_of(context)
    points = _eps_points(given["explain_eps_curve"])
    card = options.card_of(given["model"])
    data = options.load_data(
        given["data"] if given["data"] is not None else options.data_of(card),
        given["split"],
        given["data_dir"],
        given["label_column"],
        given["box"],
    )
    if given["samples"] is not None:
        data = data.head(given["samples"])
    eps = 0.0 if given["eps"] is None and given["gamma"] is not None else given["eps"]
    threat = threat_of(data, card, given["norm"], eps, given["eps_unit"], given["immutable"])
    config = _config(context, data)
    config.info(data.shape)  # what does not fit shows before the model is loaded
    where = options.pick_device(given["device"])
    loaded = options.load_model(
        given["model"],
        card,
        data,
        where,
        given["arch"],
        given["arch_args"],
        given["mean"],
        given["std"],
        given["trust_checkpoint"],
    )
    if given["plan_"]:
        found = estimate_explanations(
            loaded,
            data,
            threat=threat,
            config=config,
            batch_size=batch_size,
            max_memory=room,
            device=where,
        )
        plan.show_plan(found)
        return found
    stderr = Console(stderr=True)
    with RunProgress(stderr) as progress:
        run = evaluation.evaluate_explanations(
            loaded,
            data,
            threat=threat,
            config=config,
            seed=given["seed"],
            batch_size=batch_size,
            max_memory=room,
            device=where,
            out=given["out"],
            resume=given["resume"],
            save_adversarial=given["save_adversarial"],
            overwrite=given["overwrite"],
            progress=progress,
            start=workers.start_of(given["shard"]),
        )
    draw_curve(run)
    draw_samples(run, loaded, data)
    if points:
        draw_eps_curve(run, eps_curve(run, loaded, data, points))
    for notice in (*run.store.manifest.notices, *run.summary.notices):
        stderr.print(f"notice: {notice}", highlight=False, markup=False, soft_wrap=True)
    if given["as_json"]:
        print(run.summary.to_bytes().decode(), end="")
    else:
        _show(run, shared=given["workers_"] > 1 or given["shard"] is not None)
    return run.folder


def _show(run: Run, shared: bool) -> None:
    from robustbench_c.cli.tables import print_run
    from robustbench_c.evaluation.explained_curve import CURVE, EPS_CURVE
    from robustbench_c.evaluation.explained_pictures import NAME

    print_run(run.store, run.summary)
    if run.resumed and not shared:
        print("went on with the record that was there (--overwrite starts afresh)")
    print(f"record: {run.folder}")
    for name in (CURVE, EPS_CURVE, NAME):
        if (picture := run.folder / f"{name}.png").exists():
            print(f"pictures: {picture}")


def _config(context: typer.Context, data: Dataset) -> ExplainConfig:
    from attacks.explanation_config import ExplanationAttackConfig
    from attacks.threat import WeightBudget
    from robustbench_c.data.features import feature_places
    from robustbench_c.evaluation import ExplainConfig

    given: dict[str, Any] = context.params
    if given["gamma"] is None and given["gamma_absolute"]:
        raise UsageError("--gamma-absolute says how --gamma counts: give --gamma")
    budget = given["gamma"] and WeightBudget(given["gamma"], not given["gamma_absolute"])
    usual = ExplanationAttackConfig()
    attack = None
    if given["attack"] == "none":
        if told := options.given_of(context, ("explain_aim", "explain_surrogate")):
            raise UsageError(f"{told} belongs to the attack: leave out --attack none")
    else:
        attack = ExplanationAttackConfig(
            steps=given["steps"] if options.is_given(context, "steps") else usual.steps,
            restarts=given["restarts"] if options.is_given(context, "restarts") else usual.restarts,
            step_size=given["step_size"],
            surrogate=_surrogate(given["explain_surrogate"], usual.surrogate),
            aim=_aim(given["explain_aim"]),
        )
    lipschitz = given["explain_lipschitz_budget"]
    if lipschitz is not None and not given["explain_lipschitz"]:
        raise UsageError("--explain-lipschitz-budget belongs to --explain-lipschitz: add it")
    told = given["explain_method"]
    methods = () if told == "none" else tuple(part.strip() for part in told.split(","))
    return ExplainConfig(
        _explanation(given, data),
        _criterion(given, data),
        attack,
        methods,
        budget or None,
        min(5, data.x[0].numel()) if given["top_k"] is None else given["top_k"],
        (1 if lipschitz is None else lipschitz) if given["explain_lipschitz"] else None,
        feature_places(data, named, "--monotone") if (named := given["monotone"]) else (),
    )


def _aim(text: str | None) -> AimName:
    from attacks.explanation_config import AIMS

    for aim in AIMS:
        if text in (None, aim):
            return aim
    raise UsageError(f"no aim '{text}'; {did_you_mean(str(text), list(AIMS))}")


def _surrogate(text: str | None, usual: float | None) -> float | None:
    if text is None or text == "none":
        return usual if text is None else None
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--explain-surrogate '{text}' is neither a number nor none") from None


def _explanation(given: dict[str, Any], data: Dataset) -> Explanation:
    from attacks.explanations import KINDS, SCORES, Explanation

    kind, of, steps, sigma = (
        given[name] for name in ("explain", "explain_of", "explain_steps", "explain_sigma")
    )
    if kind not in KINDS:
        raise UsageError(f"no explanation '{kind}'; {did_you_mean(kind, list(KINDS))}")
    if of not in SCORES:
        raise UsageError(f"--explain-of '{of}' is none of {', '.join(SCORES)}")
    if steps is not None and kind not in _DRAWS:
        raise UsageError(f"--explain-steps belongs to {' and '.join(_DRAWS)}, not to {kind}")
    if sigma is not None and kind != "smoothgrad":
        raise UsageError(f"--explain-sigma belongs to smoothgrad, not to {kind}")
    if steps is not None and not 1 <= steps <= 1000:
        raise UsageError(f"--explain-steps {steps} is not from 1 to 1000")
    if kind == "smoothgrad":
        noise = 0.05 if sigma is None else sigma
        return Explanation.smoothgrad(data.shape, steps or 10, noise, given["seed"], of)
    return Explanation(kind, of, (steps or 10) if kind in _DRAWS else 1)


def _criterion(given: dict[str, Any], data: Dataset) -> Criterion:
    from attacks.explanation_measures import MEASURES, Criterion
    from robustbench_c.data.features import PROTECTED, feature_places

    measure, delta, cosine = given["measure"], given["delta"], given["min_cosine"]
    if measure is not None and measure not in MEASURES:
        raise UsageError(f"no measure '{measure}'; {did_you_mean(measure, list(MEASURES))}")
    if cosine is not None and (delta is not None or measure not in (None, "cosine")):
        raise UsageError("--min-cosine says it all: leave out --delta and --measure")
    if cosine is not None and not -1 <= cosine <= 1:
        raise UsageError(f"--min-cosine {cosine:g} is not from -1 to 1")
    if measure is None:
        measure = "cosine" if delta is None else "linf"
    if given["relative"] and measure not in _NORMS:
        raise UsageError(f"--relative belongs to {', '.join(_NORMS)}, not to {measure}")
    if given["signed"] and measure not in _RANKED:
        raise UsageError(f"--signed belongs to {', '.join(_RANKED)}, not to {measure}")
    targeted = measure in ("into-top-k", "out-of-top-k")
    if given["features"] is not None and not targeted:
        raise UsageError("--features belongs to --measure into-top-k and out-of-top-k")
    if delta is None and measure == "cosine":
        delta = 1 - (0.9 if cosine is None else cosine)
    if delta is None and not targeted:
        raise UsageError(f"give --delta: the largest distance by {measure} that is fine")
    features: tuple[int, ...] = ()
    if targeted:
        text = given["features"]
        if text is None and not data.protected_columns:
            raise UsageError(f"--measure {measure} is about some features: give --features")
        features = feature_places(data, PROTECTED if text is None else text, "--features")
    top = 5 if given["top_k"] is None else given["top_k"]
    k = top if measure in _RANKED else None
    return Criterion(measure, delta or 0.0, k, features, given["relative"], given["signed"])


def _eps_points(text: str | None) -> tuple[float, ...]:
    points = options.numbers(text, "--explain-eps-curve") or ()
    if any(not 0 < eps < float("inf") for eps in points):
        raise UsageError(f"--explain-eps-curve '{text}': radii are finite and above 0")
    return tuple(sorted(set(points)))
