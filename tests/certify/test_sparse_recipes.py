"""The recipes of sparse training: legal, bound to their methods, and as sparse as asked."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from certify.sparse import METHODS
from robustbench_c.training.objectives import bind
from robustbench_c.training.recipe import known_recipes, load_recipe, override
from robustbench_c.training.sparsity import bind_sparse
from tests.certify.sparse_nets import draws

SPARSE = [name for name in known_recipes() if load_recipe(name).sparse is not None]


@pytest.mark.parametrize("name", SPARSE)
def test_recipe_is_bound_and_takes_a_sparsity(name):
    recipe = override(load_recipe(name), {"sparsity": 0.95, "epochs": 8})
    assert recipe.name == name
    method = bind_sparse(recipe.sparse)(nn.Linear(100, 10), draws)
    assert method.settings.sparsity == 0.95
    assert method.budget.kept == 50
    bind(recipe.objective.name, recipe.objective.settings, torch.tensor(0.0), torch.tensor(1.0))


def test_every_method_has_a_recipe():
    assert {load_recipe(name).sparse.method for name in SPARSE} == set(METHODS)
