"""The option that makes a random model one that can be attacked and judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustbench_c.errors import UsageError

if TYPE_CHECKING:
    from robustbench_c.zoo.loading import LoadedModel

Draws = Annotated[
    int | None,
    typer.Option(
        "--eot",
        min=1,
        max=10_000,
        help="Evaluate a random model: its mean over this many draws, judged on others too.",
    ),
]


def check_draws(given: dict[str, Any]) -> None:
    """Raise UsageError where a mean over draws goes with no other option that is given."""
    for name in ("explain", "certify"):
        if given["eot"] is not None and given[name] is not None:
            raise UsageError(f"--eot goes with attacks alone: leave out --{name}")


def averaged_if(model: LoadedModel, draws: int | None, seed: int) -> LoadedModel:
    """The mean of a random model over its draws, or the model itself without `--eot`."""
    if draws is None:
        return model
    from robustbench_c.evaluation.averaging import averaged

    return averaged(model, draws, seed)
