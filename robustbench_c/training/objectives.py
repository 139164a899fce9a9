"""The training objectives that recipes know by name, and what binds them to a recipe's settings.

An objective is a plain function `(model, x, y, *, generator, scale, **settings) -> loss`, or a
class that is made of its settings and called with the rest. To add one, write it in `attacks` (or
`certify`), and enter it in `OBJECTIVES`. One that takes `base` adds to another objective.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_type_hints

import torch
from pydantic import ConfigDict, ValidationError, create_model
from torch import Tensor, nn

from attacks.adversarial import PGDTraining
from attacks.awp import AWP
from attacks.classifier import TiledClassifier
from attacks.explanation_objectives import align, hessian, ig_norm
from attacks.fast import GradAlign, NoisyFGSM
from attacks.free import Free
from attacks.mart import Mart
from attacks.objectives import standard
from attacks.pgd import PGDConfig
from attacks.pgd import pgd as pgd_attack
from attacks.threat import ThreatModel
from attacks.trades import Trades
from certify.training import cc_ibp, crown_ibp, explanation_box, ibp, mtl_ibp, nrs, sabr, verified
from robustbench_c.errors import UsageError, did_you_mean
from robustbench_c.training.interfaces import Attack, Objective, Verifier
from robustbench_c.training.recipe import ObjectiveChoice, first_fault

CERTIFIED: dict[str, Callable[..., Tensor]] = {
    "ibp": ibp,
    "crown-ibp": crown_ibp,
    "mtl-ibp": mtl_ibp,
    "cc-ibp": cc_ibp,
    "sabr": sabr,
    "nrs": nrs,
}
OBJECTIVES: dict[str, Callable[..., Any]] = {
    "standard": standard,
    "pgd": PGDTraining,
    "trades": Trades,
    "mart": Mart,
    "n-fgsm": NoisyFGSM,
    "gradalign": GradAlign,
    "free": Free,
    "awp": AWP,
    **CERTIFIED,
    "explain": explanation_box,
    "align": align,
    "hessian": hessian,
    "ig-norm": ig_norm,
}
_GIVEN = {"generator", "scale", "lower", "upper"}
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def bind(name: str, settings: Mapping[str, Any], lower: Tensor, upper: Tensor) -> Objective:
    """Return the objective with a recipe's settings, and the input box where it takes one.

    Raises:
        UsageError: No such objective, or it has no such setting, or misses one, or a value is not
            legal for its type.
        AttackError: A value is out of its range.
    """
    if name not in OBJECTIVES:
        raise UsageError(f"no objective '{name}'; {did_you_mean(name, list(OBJECTIVES))}")
    function = OBJECTIVES[name]
    parameters = inspect.signature(function).parameters
    keywords = {k: p for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    known = [key for key in keywords if key not in _GIVEN]
    for key in settings:
        if key not in known:
            hint = did_you_mean(key, known) if known else "it has no settings"
            raise UsageError(f"the objective '{name}' has no setting '{key}'; {hint}")
    for key in known:
        if key not in settings and keywords[key].default is inspect.Parameter.empty:
            raise UsageError(f"the objective '{name}' needs the setting '{key}'")
    chosen = _with_base(name, settings, lower, upper)
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {key: (hints[key], keywords[key].default) for key in settings}
    schema = create_model("Settings", __config__=_STRICT, **fields)
    try:
        schema.model_validate(chosen)
    except ValidationError as error:
        raise UsageError(f"the objective '{name}': setting {first_fault(error)}") from error
    box = {"lower": lower, "upper": upper}
    given = {**chosen, **{k: v for k, v in box.items() if k in keywords}}
    if isinstance(function, type):
        made: Objective = function(**given)
        return made
    return partial(function, **given)


def _with_base(
    name: str, settings: Mapping[str, Any], lower: Tensor, upper: Tensor
) -> dict[str, Any]:
    """The settings; `base`, the objective that this one is added to, is bound as well."""
    if "base" not in settings:
        return dict(settings)
    try:
        base = ObjectiveChoice.model_validate(settings["base"])
    except ValidationError as error:
        raise UsageError(
            f"the objective '{name}': setting base is a table of a name and its settings: "
            f"{first_fault(error)}"
        ) from error
    return {**settings, "base": bind(base.name, base.settings, lower, upper)}


def short_attack(
    threat: Mapping[str, Any], lower: Tensor, upper: Tensor, seed: int
) -> Attack | None:
    """PGD-10, one restart, at the norm and eps that is trained for; None where there is none.

    It watches training, with the same noise after every epoch. It is no evaluation.
    """
    if not threat:
        return None
    model_of = ThreatModel.box(threat["norm"], threat["eps"], lower, upper)
    config = PGDConfig(steps=10, restarts=1)

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        classifier = TiledClassifier(model, (32, 256))
        ids = torch.arange(len(x))
        return pgd_attack(classifier, x, y, ids, model_of.to(x.device), config, seed).found

    return attack


def verifier(
    name: str, settings: Mapping[str, Any], lower: Tensor, upper: Tensor
) -> Verifier | None:
    """Interval bounds at the eps that is trained for; None where the objective has no bounds."""
    if name not in CERTIFIED:
        return None
    return partial(verified, eps=settings["eps"], lower=lower, upper=upper)
