"""The options of a threat model, as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from robustbench_c.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from attacks.threat import ThreatModel
    from robustbench_c.data import Dataset
    from robustbench_c.zoo.cards import Card


def threat_of(
    data: Dataset,
    card: Card | None,
    norm: str | None,
    eps: float | None,
    eps_unit: str,
    immutable: str | None,
) -> ThreatModel:
    """Return the threat model that the options name; the model's card says what is left out.

    Features that may not change are, where no option names any, those of the data's attributes
    (see `Dataset.immutable_columns`); "none" frees all.

    Raises:
        UsageError: No radius, or a feature that is not there.
    """
    from attacks.threat import AnyNorm, ThreatModel, feature_ranges

    norms: tuple[AnyNorm, ...] = get_args(AnyNorm)
    if norm is not None and norm not in norms:
        raise UsageError(f"no norm '{norm}'; {did_you_mean(norm, list(norms))}")
    if norm == "l0" and (eps_unit != "input" or eps is None or eps % 1 != 0):
        raise UsageError("of l0, --eps is a number of features, such as 20, and has no --eps-unit")
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
    return ThreatModel(norm, eps, data.lower, data.upper, mask, scale)


def _immutable(data: Dataset, text: str | None) -> Tensor | None:
    if text is None:
        return data.immutable_mask
    import torch

    from robustbench_c.data.features import feature_places

    mask = torch.zeros(data.x[0].numel(), dtype=torch.bool)
    if text.strip() != "none" or "none" in data.feature_names:
        mask[list(feature_places(data, text, "--immutable"))] = True
    return mask.view(data.shape)
