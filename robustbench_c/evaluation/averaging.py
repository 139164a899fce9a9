"""A random model made one that can be evaluated: its mean over draws that are made once."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from attacks.eot import Expectation
from leaderboards.canonical import sha256_json
from leaderboards.manifest import DrawsInfo
from robustbench_c.errors import UsageError
from robustbench_c.zoo.loading import LoadedModel

_MOST = 10_000


@dataclass(frozen=True)
class AveragedModel(LoadedModel):
    """The mean probability of a random model over keyed draws; its logits are logs of it.

    Attributes:
        draws: Which draws, and of what.
        other: The mean over as many other draws, which judges what is found on these.
    """

    draws: DrawsInfo
    other: nn.Module


def averaged(base: LoadedModel, draws: int, seed: int = 0) -> AveragedModel:
    """Average a random model (`attacks.eot.Expectation`).

    The subject is the mean over these very draws, and its hash says so: it is made of the base's,
    of their number and of their seed.

    Args:
        base: The random model, such as `robustbench_c.evaluation.subject.subject(module)`.
        draws: Draws of the mean, and of the other one, from 1 to 10,000.
        seed: Seed of the run: those of both sets of draws are made of it.

    Raises:
        UsageError: `draws` is out of range.
    """
    if not 1 <= draws <= _MOST:
        raise UsageError(f"{draws} draws: a mean is over 1 to {_MOST}")
    own, other = (int(sha256_json([purpose, seed])[:12], 16) for purpose in ("draws", "others"))
    return of_info(
        base,
        DrawsInfo(
            count=draws, seed=own, other_seed=other, base_name=base.name, base_sha256=base.sha256
        ),
    )


def of_info(base: LoadedModel, info: DrawsInfo) -> AveragedModel:
    """The same mean again, as a record describes it, of the model that is given."""
    made_of = info.model_dump(mode="json", include={"count", "seed"}) | {"base": base.sha256}
    about = f"mean of {info.count} draws of"
    return AveragedModel(
        Expectation(base.module, info.count, info.seed),
        f"{about} {base.name}"[:500],
        None,
        sha256_json({"expectation": made_of}),
        f"{about} {base.architecture}, seed {info.seed}",
        base.notices,
        info,
        Expectation(base.module, info.count, info.other_seed),
        sources=base.sources,
    )
