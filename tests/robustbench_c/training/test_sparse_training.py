"""Sparse recipes: exact resume, what is measured, what is refused."""

from __future__ import annotations

import json

import pytest
import torch

from certify.sparse import prunable
from robustbench_c.errors import RunError, UsageError
from robustbench_c.training import Progress, TrainConfig, fit
from robustbench_c.training.recipe import SparseChoice, load_recipe, override
from robustbench_c.training.sparsity import bind_sparse

CONFIG = TrainConfig(
    epochs=4,
    batch_size=16,
    optimiser="adam",
    learning_rate=0.02,
    schedule="cosine",
    clip_norm=1.0,
    ema_decay=0.9,
    validation=20,
)
SETTINGS = {"sparsity": 0.6, "every": 2, "surplus": 1.75, "allocation": "global"}


class StopAfter(Progress):
    def __init__(self, epoch: int) -> None:
        self.at = epoch

    def epoch(self, row) -> None:
        if row.epoch == self.at:
            raise InterruptedError


@pytest.mark.parametrize("regrow", ["gradient", "momentum", "random"])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_resume_gives_the_same_masks_and_weights_bit_for_bit(
    tmp_path, blobs, make_model, noisy, regrow, stop
):
    sparsify = bind_sparse(SparseChoice(method="dynamic", settings={**SETTINGS, "regrow": regrow}))
    call = {"sparsify": sparsify}
    whole = fit(make_model(), blobs, noisy, CONFIG, folder=tmp_path / "a", **call)
    halted = tmp_path / "b"
    with pytest.raises(InterruptedError):
        fit(make_model(), blobs, noisy, CONFIG, folder=halted, progress=StopAfter(stop), **call)
    again = fit(make_model(), blobs, noisy, CONFIG, folder=halted, resume=True, **call)
    there = again.model.state_dict()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, there[name]), name
    churn = [(tmp_path / part / "churn.jsonl").read_text() for part in "ab"]
    assert churn[0] == churn[1]
    assert sum(json.loads(line)["grown"] for line in churn[0].splitlines()) > 0


def test_the_measured_average_has_exactly_the_asked_zeros(tmp_path, blobs, make_model, noisy):
    sparsify = bind_sparse(SparseChoice(method="dynamic", settings=SETTINGS))
    result = fit(make_model(), blobs, noisy, CONFIG, folder=tmp_path, sparsify=sparsify)
    weights = prunable(result.model).values()
    total = sum(w.numel() for w in weights)
    zeros = sum(int((w == 0).sum()) for w in weights)
    assert zeros == total - round(0.4 * total)
    assert result.rows[-1].sparsity == zeros / total
    assert result.rows[0].sparsity < result.rows[-1].sparsity


def test_a_dense_training_has_no_sparsity_and_no_churn(tmp_path, blobs, make_model, noisy):
    (tmp_path / "churn.jsonl").write_text("of an earlier training here")
    result = fit(make_model(), blobs, noisy, CONFIG, folder=tmp_path)
    assert result.rows[-1].sparsity is None
    assert not (tmp_path / "churn.jsonl").exists()


def test_a_checkpoint_of_another_method_is_refused(tmp_path, blobs, make_model, noisy):
    dynamic = bind_sparse(SparseChoice(method="dynamic", settings=SETTINGS))
    static = bind_sparse(SparseChoice(method="static", settings={"sparsity": 0.6}))
    call = {"folder": tmp_path, "progress": StopAfter(1)}
    with pytest.raises(InterruptedError):
        fit(make_model(), blobs, noisy, CONFIG, sparsify=static, identity={"m": 1}, **call)
    with pytest.raises(RunError, match="another"):
        fit(
            make_model(),
            blobs,
            noisy,
            CONFIG,
            folder=tmp_path,
            resume=True,
            sparsify=dynamic,
            identity={"m": 1},
        )


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"method": "dynamo"}, "did you mean 'dynamic'"),
        ({"method": "dynamic"}, "sparsity"),
        ({"method": "dynamic", "settings": {"sparsity": 1.0}}, "sparsity"),
        ({"method": "static", "settings": {"sparsity": 0.5, "regrow": "random"}}, "regrow"),
        ({"method": "static", "settings": {"sparsity": 0.5, "allocation": "even"}}, "allocation"),
    ],
)
def test_wrong_settings_are_named(choice, told):
    with pytest.raises(UsageError, match=told):
        bind_sparse(SparseChoice(**choice))


def test_too_sparse_for_the_network_is_one_line(make_model):
    sparsify = bind_sparse(SparseChoice(method="static", settings={"sparsity": 0.99}))
    with pytest.raises(UsageError, match="each needs one"):
        sparsify(make_model(), lambda purpose, step: torch.Generator())


def test_sparsity_is_an_option_of_sparse_recipes_alone():
    assert override(load_recipe("sparsevlr"), {"sparsity": 0.99}).sparse.settings == {
        **load_recipe("sparsevlr").sparse.settings,
        "sparsity": 0.99,
    }
    with pytest.raises(UsageError, match="has no sparsity"):
        override(load_recipe("ibp"), {"sparsity": 0.5})


def test_a_new_eps_counts_for_a_base_that_had_the_same():
    given = override(load_recipe("nrs"), {"eps": 0.05}).objective.settings
    assert given["eps"] == given["base"]["settings"]["eps"] == 0.05
    attack = {"norm": "linf", "eps": 0.1, "steps": 4, "step_size": 0.05}
    nrs = load_recipe("nrs").model_copy(deep=True)
    nrs.objective.settings["base"] = {"name": "pgd", "settings": attack}
    inner = override(nrs, {"eps": 0.05}).objective.settings["base"]["settings"]
    assert (inner["eps"], inner["step_size"]) == (0.05, 0.025)
    attack["eps"] = 0.2
    assert override(nrs, {"eps": 0.05}).objective.settings["base"]["settings"] == attack


def test_a_recipe_can_be_trained_on_the_loss_of_another():
    chosen = override(load_recipe("sparsevlr"), {"objective": "pgd", "steps": 2, "eps": 0.05})
    pgd = load_recipe("pgd")
    assert chosen.sparse == load_recipe("sparsevlr").sparse
    assert chosen.objective.name == "pgd"
    assert chosen.initialise is None
    ratio = pgd.objective.settings["step_size"] * pgd.objective.settings["steps"]
    assert chosen.objective.settings["step_size"] == pytest.approx(
        ratio / 2 * 0.05 / pgd.objective.settings["eps"]
    )
    with pytest.raises(UsageError, match="did you mean 'crown-ibp'"):
        override(load_recipe("sparsevlr"), {"objective": "crown-ipb"})
