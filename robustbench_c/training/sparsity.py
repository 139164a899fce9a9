"""The sparse training methods that recipes know by name, and what binds a recipe's settings."""

from __future__ import annotations

from pydantic import ValidationError
from torch import nn

from certify.sparse import METHODS, Random, Sparsifier
from robustbench_c.errors import UsageError, did_you_mean
from robustbench_c.training.interfaces import Sparsify
from robustbench_c.training.recipe import SparseChoice, first_fault


def bind_sparse(choice: SparseChoice) -> Sparsify:
    """Return the method with a recipe's settings.

    Raises:
        UsageError: No such method or setting, a value that is not legal, or one that is missing.
    """
    if choice.method not in METHODS:
        hint = did_you_mean(choice.method, list(METHODS))
        raise UsageError(f"no sparse method '{choice.method}'; {hint}")
    method = METHODS[choice.method]
    try:
        settings = method.settings_type.model_validate(choice.settings)
    except ValidationError as error:
        raise UsageError(
            f"the sparse method '{choice.method}': setting {first_fault(error)}"
        ) from error

    def make(model: nn.Module, random: Random) -> Sparsifier:
        try:
            return method(model, settings, random)
        except ValueError as error:
            raise UsageError(f"the sparse method '{choice.method}': {error}") from error

    return make
