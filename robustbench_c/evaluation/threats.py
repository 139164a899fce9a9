"""Threat models as records hold them, and back."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attacks.errors import AttackError
from attacks.threat import ThreatModel, diameter, feature_ranges
from leaderboards.manifest import StepInfo, ThreatInfo
from leaderboards.sample_ids import format_ids, parse_ids
from robustbench_c.data import Dataset
from robustbench_c.errors import DataError


def settled(threat: ThreatModel, data: Dataset) -> ThreatModel:
    """Return the same threat model in the one form that `threat_of` gives back, on the CPU.

    One that names no immutable features (None) takes those of the data, where the data have any;
    a mask that is false everywhere frees them.

    Raises:
        AttackError: A tensor of the wrong shape, or a scale that is not the data's ranges.
        DataError: Its box is not that of the data.
    """
    threat, shape = threat.to("cpu"), data.shape
    threat.check_shape(shape)
    for given, own in ((threat.lower, data.lower), (threat.upper, data.upper)):
        if not torch.equal(given.float().expand(shape), own.expand(shape)):
            raise DataError(
                f"the threat model's box is not that of {data.name}: use its lower and upper"
            )
    ranges = feature_ranges(data.lower, data.upper, shape)
    if threat.scale is not None and not torch.equal(threat.scale.float().expand(shape), ranges):
        raise AttackError(
            "a record holds no scale but the ranges of the features: use "
            "attacks.threat.feature_ranges(lower, upper, shape)"
        )
    fixed = data.immutable_mask if threat.immutable is None else threat.immutable.expand(shape)
    if fixed is not None and not bool(fixed.any()):
        fixed = _free(data)
    return ThreatModel(
        threat.norm,
        float(threat.eps),
        data.lower,
        data.upper,
        fixed,
        None if threat.scale is None else ranges,
    )


def _free(data: Dataset) -> Tensor | None:
    """The mask that fixes nothing: None, unless that would mean the data's own."""
    own = data.immutable_mask
    return None if own is None else torch.zeros_like(own)


def threat_info(threat: ThreatModel) -> ThreatInfo:
    """What a manifest says of a settled threat model."""
    fixed = threat.immutable
    places = () if fixed is None else fixed.flatten().nonzero()[:, 0].numpy()
    return ThreatInfo(
        norm=threat.norm,
        eps=threat.eps,
        eps_unit="input" if threat.scale is None else "range",
        sha256=threat.sha256(),
        immutable=format_ids(places) if len(places) else "",
    )


def threat_of(info: ThreatInfo, data: Dataset) -> ThreatModel:
    """Return the threat model of a manifest, with the box of its data.

    Raises:
        DataError: What it gives is not what the manifest's hash was made of.
    """
    immutable = _free(data)
    if info.immutable:
        places = torch.from_numpy(parse_ids(info.immutable))
        immutable = torch.zeros(data.x[0].numel(), dtype=torch.bool)
        if int(places[-1]) >= len(immutable):
            raise DataError("the record's threat model fixes a feature outside of the sample")
        immutable[places] = True
        immutable = immutable.view(data.shape)
    ranged = info.eps_unit == "range"
    scale = feature_ranges(data.lower, data.upper, data.shape) if ranged else None
    threat = ThreatModel(info.norm, info.eps, data.lower, data.upper, immutable, scale)
    if threat.sha256() != info.sha256:
        raise DataError("the record's threat model does not have the hash that the record gives")
    return threat


def searched(step: StepInfo, threat: ThreatModel, shape: tuple[int, ...]) -> ThreatModel:
    """Return where an attack looks: all of the box if it is for the nearest example."""
    if not step.minimal:
        return threat
    beyond = (1 + 1e-6) * diameter(threat, shape)  # sums are rounded in another order elsewhere
    return replace(threat, eps=max(threat.eps, beyond))
