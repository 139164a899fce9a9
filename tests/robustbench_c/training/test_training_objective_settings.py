"""What a recipe may set of an objective: a wrong name, type or range is one line."""

from __future__ import annotations

import pytest
import torch

from robustbench_c.errors import UsageError
from robustbench_c.training.objectives import bind, verifier

BOX = torch.tensor(0.0), torch.tensor(1.0)
MTL = {"norm": "linf", "eps": 0.1, "alpha": 0.3, "steps": 1, "step_size": 0.1}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mtl-ibp", {"alpha": 1.5}, "objective 'mtl-ibp': setting alpha: .* less than or equal to"),
        ("mtl-ibp", {"alpha": "0.5"}, "setting alpha: Input should be a valid number"),
        ("mtl-ibp", {"eps": -0.1}, "setting eps: .* greater than or equal to 0"),
        ("mtl-ibp", {"eps": float("nan")}, "setting eps: .* finite"),
        ("mtl-ibp", {"norm": "l2"}, "setting norm: Input should be 'linf'"),
        ("mtl-ibp", {"steps": 1.5}, "setting steps: Input should be a valid integer"),
        ("mtl-ibp", {"step_size": 0.0}, "setting step_size: .* greater than 0"),
        ("mtl-ibp", {"alfa": 0.3}, "has no setting 'alfa'; did you mean 'alpha'"),
        ("crown-ibp", {"fusion": 1}, "setting fusion: Input should be a valid boolean"),
        ("pgd", {"norm": "l3"}, "setting norm: Input should be 'linf', 'l2' or 'l1'"),
    ],
)
def test_bad_settings_are_one_line(name, change, message):
    given = {"norm": "linf", "eps": 0.1} if name == "crown-ibp" else dict(MTL)
    if name == "pgd":
        del given["alpha"]
    bind(name, given, *BOX)
    with pytest.raises(UsageError, match=message) as error:
        bind(name, given | change, *BOX)
    assert "\n" not in str(error.value)


EXPLAIN = {"norm": "linf", "eps": 0.1, "alpha": 0.5}
PGD = {"norm": "linf", "eps": 0.2, "steps": 2, "step_size": 0.1}


def test_an_objective_is_added_to_another_one():
    model, x, y = torch.nn.Linear(3, 2), torch.rand(4, 3), torch.tensor([0, 1, 1, 0])

    def value(name, settings):
        noise = torch.Generator().manual_seed(0)
        return bind(name, settings, *BOX)(model, x, y, generator=noise, scale=1.0)

    plain, attacked = value("standard", {}), value("pgd", PGD)
    assert attacked > plain
    for name, settings in (
        ("explain", EXPLAIN),
        ("align", {"norm": "linf", "eps": 0.0, "l2": 1.0}),
        ("hessian", {"weight": 0.1, "step": 0.1}),
    ):
        # a linear model's explanation never moves: the penalty is 0, the base is all
        for base, expected in (("standard", plain), ("pgd", attacked)):
            chosen = {"name": base, "settings": PGD if base == "pgd" else {}}
            found = value(name, settings | {"base": chosen})
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(value(name, settings), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": "pgd"}, "setting base is a table of a name and its settings"),
        ({"base": {"settings": {}}}, "setting base is a table .*: name: Field required"),
        ({"base": {"name": "pdg"}}, "no objective 'pdg'; did you mean 'pgd'"),
        ({"base": {"name": "pgd"}}, "the objective 'pgd' needs the setting 'norm'"),
        ({"base": {"name": "pgd", "settings": PGD | {"steps": 1.5}}}, "'pgd': setting steps"),
        ({"penalty": "size"}, "setting penalty: Input should be 'width', 'relative' or 'cosine'"),
        ({"share": 0.0}, "setting share: .* greater than 0"),
        ({"gamma": -0.1}, "setting gamma: .* greater than or equal to 0"),
        ({"alpha": -1.0}, "setting alpha: .* greater than or equal to 0"),
    ],
)
def test_bad_settings_of_explain_are_one_line(change, message):
    bind("explain", EXPLAIN, *BOX)
    with pytest.raises(UsageError, match=message) as error:
        bind("explain", EXPLAIN | change, *BOX)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("missing", ["norm", "eps", "alpha", "steps", "step_size"])
def test_a_missing_setting_is_named(missing):
    given = {key: value for key, value in MTL.items() if key != missing}
    with pytest.raises(UsageError, match=f"the objective 'cc-ibp' needs the setting '{missing}'"):
        bind("cc-ibp", given, *BOX)


def test_verified_accuracy_is_measured_for_objectives_with_bounds_alone():
    assert verifier("pgd", {"norm": "linf", "eps": 0.1}, *BOX) is None
    model = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
        model.bias.zero_()
    x, y = torch.tensor([[0.5, 0.35], [0.5, 0.2], [0.5, 0.2]]), torch.tensor([0, 0, 1])
    prove = verifier("ibp", {"norm": "linf", "eps": 0.1}, *BOX)
    assert prove is not None
    assert prove(model, x, y).tolist() == [False, True, False]
