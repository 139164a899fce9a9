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
