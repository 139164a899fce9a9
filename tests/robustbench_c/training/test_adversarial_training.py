"""Adversarial training methods in the loop: they make models robust, and resume exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustbench_c.errors import UsageError
from robustbench_c.training import Augmentation, Progress, TrainConfig, fit
from robustbench_c.training.measure import accuracy
from robustbench_c.training.objectives import bind, short_attack
from robustbench_c.training.recipe import known_recipes, load_recipe, override

BOX = torch.tensor(0.0), torch.tensor(1.0)
LINF = {"norm": "linf", "eps": 0.15}
PGD = LINF | {"steps": 3, "step_size": 0.08}
METHODS = {
    "pgd": PGD,
    "trades": PGD,
    "mart": PGD,
    "n-fgsm": LINF,
    "gradalign": LINF,
    "free": LINF | {"replays": 2},
    "awp": {"base": {"name": "pgd", "settings": PGD}},
}


@dataclass
class Tempting:
    """One feature of a wide margin that is sometimes wrong, and many of a margin below eps."""

    x: Tensor
    y: Tensor
    sha256: str = "0" * 64
    name: str = "tempting"
    lower: float = 0.0
    upper: float = 1.0
    classes: tuple[str, ...] = ("a", "b")


def draw(count: int, seed: int) -> Tempting:
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 2
    sign = 2.0 * y - 1
    right = (torch.rand(count, generator=g) < 0.9) * 2.0 - 1
    wide = 0.5 + 0.35 * sign * right
    weak = 0.5 + 0.06 * sign[:, None] + 0.1 * torch.randn(count, 40, generator=g)
    return Tempting(torch.cat([wide[:, None], weak], 1).clamp(0, 1), y)


@pytest.fixture(scope="module")
def tempting() -> Tempting:
    return draw(400, 0)


@pytest.fixture(scope="module")
def test_split() -> Tempting:
    return draw(300, 1)


def mlp() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(41, 16), nn.ReLU(), nn.Linear(16, 2))


CONFIG = TrainConfig(
    epochs=8, batch_size=50, optimiser="adam", learning_rate=0.03, schedule="cosine",
    eps_warmup_epochs=2,
)  # fmt: skip


def trained(folder, data, name, config=CONFIG, **options):
    objective = bind(name, METHODS.get(name, {}), *BOX)
    return fit(mlp(), data, objective, config, folder=folder, **options)


def measured(model, split):
    """Clean accuracy, and that under PGD-10."""
    attack = short_attack(LINF, *BOX, 0)
    return accuracy(model, split.x, split.y), accuracy(model, split.x, split.y, attack)


@pytest.fixture(scope="module")
def plain(tempting, test_split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robustbench_c.training.loop.draw", lambda *_: None)
        return measured(trained(folder, tempting, "standard").model, test_split)


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_is_more_robust_than_plain_training(
    tmp_path, tempting, test_split, plain, name
):
    config = CONFIG.model_copy(update={"epochs": 4}) if name == "free" else CONFIG
    clean, robust = measured(trained(tmp_path, tempting, name, config).model, test_split)
    assert plain[0] > 0.85
    assert plain[1] < 0.3
    assert clean > 0.85
    assert clean >= robust > 0.8


class StoppedError(Exception):
    pass


class StopIn(Progress):
    def __init__(self, epoch: int, step: int) -> None:
        self.at, self.steps = (epoch, step), 0

    def step(self, epoch: int, step: int, loss: float, samples_per_second: float) -> None:
        self.steps += 1
        if (epoch, step) == self.at:
            raise StoppedError


CHANGES = {"epochs": 3, "ema_decay": 0.9, "validation": 100, "keep": "best-robust"}
SHORT = CONFIG.model_copy(update=CHANGES)


@pytest.mark.parametrize("name", ["free", "awp", "gradalign"])
def test_resume_gives_the_same_bits(tmp_path, tempting, name):
    def trained(folder, data, name, config, **options):
        objective, attack = bind(name, METHODS[name], *BOX), short_attack(LINF, *BOX, 0)
        return fit(mlp(), data, objective, config, folder=folder, attack=attack, **options)

    whole = trained(tmp_path / "a", tempting, name, SHORT)
    with pytest.raises(StoppedError):
        trained(tmp_path / "b", tempting, name, SHORT, progress=StopIn(2, 3))
    resumed = trained(tmp_path / "b", tempting, name, SHORT, resume=True)
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
    here, there = ([r.loss for r in each.rows] for each in (whole, resumed))
    assert here == there


def test_each_batch_is_replayed_with_its_augmentation(tmp_path, blobs):
    seen, begun = [], []

    class Recorder:
        replays = 3

        def begin(self):
            begun.append(len(seen))

        def __call__(self, model, x, y, *, generator, scale):
            seen.append(x.clone())
            return F.cross_entropy(model(x), y)

    config = TrainConfig(
        epochs=2, batch_size=45, learning_rate=0.01, augmentation=Augmentation(shift=1, flip=True)
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    watcher = StopIn(99, 0)
    result = fit(model, blobs, Recorder(), config, folder=tmp_path, progress=watcher)
    assert begun == [0, 6]
    assert watcher.steps == len(seen) == 12
    for first in range(0, 12, 3):
        assert torch.equal(seen[first], seen[first + 1])
        assert torch.equal(seen[first], seen[first + 2])
    assert not torch.equal(seen[0], seen[3])
    # one-cycle ends at 0: half a step before the last of 12 steps' end
    assert result.rows[-1].learning_rate == pytest.approx(0.01 * (0.5 / 12) / 0.7)


def scripted(rates):
    """An attack that leaves the given shares of the held-out samples, epoch by epoch."""
    left = iter(rates)

    def attack(model, x, y):
        return torch.arange(len(x)) >= next(left) * len(x)

    return attack


def snapshots(folder, data, config, rates, **options):
    states = []

    class Watcher(Progress):
        def epoch(self, row):
            states.append({k: v.clone() for k, v in model.state_dict().items()})

    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    model[1].bias.data = torch.tensor([9.0, 0.0])

    def perfect(model, x, y, *, generator, scale):
        return F.cross_entropy(model(x), y)

    result = fit(
        model, data, perfect, config, folder=folder, attack=scripted(rates), progress=Watcher(),
        **options,
    )  # fmt: skip
    return result, states


def test_the_first_most_robust_epoch_is_kept(tmp_path, blobs):
    bright = replace(blobs, y=torch.zeros_like(blobs.y))  # always right: the attack alone decides
    config = TrainConfig(epochs=4, learning_rate=0.01, validation=20, keep="best-robust")
    rates = [0.2, 0.6, 0.6, 0.4]
    result, states = snapshots(tmp_path / "a", bright, config, rates)
    assert [row.validation_robust_accuracy for row in result.rows] == rates
    assert not torch.equal(states[1]["1.weight"], states[3]["1.weight"])
    assert torch.equal(result.model.state_dict()["1.weight"], states[1]["1.weight"])
    last, states = snapshots(
        tmp_path / "b", bright, config.model_copy(update={"keep": "last"}), rates
    )
    assert torch.equal(last.model.state_dict()["1.weight"], states[3]["1.weight"])


def test_the_kept_epoch_survives_a_resume(tmp_path, blobs, noisy):
    config = TrainConfig(epochs=3, learning_rate=0.01, validation=20, keep="best-robust")
    kept = []

    class Stop(Progress):
        def epoch(self, row):
            kept.extend(value.clone() for value in model.state_dict().values())
            raise StoppedError

    def linear():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))

    def train(model, rates, **options):
        return fit(model, blobs, noisy, config, folder=tmp_path, attack=scripted(rates), **options)

    model = linear()
    with pytest.raises(StoppedError):
        train(model, [1.0], progress=Stop())
    resumed = train(linear(), [0.0, 0.0], resume=True)
    assert resumed.rows[0].validation_robust_accuracy > 0
    for value, wanted in zip(resumed.model.state_dict().values(), kept, strict=True):
        assert torch.equal(value, wanted)


def test_nothing_to_choose_by_is_refused(tmp_path, blobs, make_model, noisy):
    config = TrainConfig(epochs=1, learning_rate=0.01, validation=20, keep="best-robust")
    with pytest.raises(UsageError, match=r"best-robust\" needs held-out samples"):
        fit(make_model(), blobs, noisy, config, folder=tmp_path)
    none = config.model_copy(update={"validation": 0})
    with pytest.raises(UsageError, match="needs held-out samples"):
        fit(make_model(), blobs, noisy, none, folder=tmp_path, attack=scripted([1.0]))
    with pytest.raises(UsageError, match="is for dense models"):
        fit(
            make_model(), blobs, noisy, config, folder=tmp_path, attack=scripted([1.0]),
            sparsify=lambda model, random: None,
        )  # fmt: skip


def test_what_is_kept_is_part_of_a_recipes_hash_only_where_it_is_set():
    recipe = load_recipe("fmnist-cnn-pgd")
    chosen = override(recipe, {"keep": "best-robust"})
    assert chosen.sha256 != recipe.sha256
    assert override(chosen, {"keep": "last"}).sha256 == recipe.sha256


def test_options_reach_the_base_of_awp():
    recipe = load_recipe("awp")  # eps 0.1, 7 steps of 0.03, in the base
    assert recipe.objective.threat == {"norm": "linf", "eps": 0.1}
    changed = override(recipe, {"eps": 0.2, "steps": 14, "norm": "l2"}).objective
    inner = changed.settings["base"]["settings"]
    assert inner == {"norm": "l2", "eps": 0.2, "steps": 14, "step_size": pytest.approx(0.03)}
    assert set(changed.settings) == {"gamma", "base"}
    fixed = override(recipe, {"eps": 0.2, "step_size": 0.01}).objective.settings["base"]
    assert fixed["settings"]["step_size"] == 0.01


def test_one_step_methods_have_no_steps_to_set():
    shorter = override(load_recipe("n-fgsm"), {"eps": 0.05})
    assert shorter.objective.settings["eps"] == 0.05
    with pytest.raises(UsageError, match="the objective 'n-fgsm' has no steps"):
        override(load_recipe("n-fgsm"), {"steps": 3})


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("trades", PGD | {"beta": "6"}, "'trades': setting beta: Input should be a valid number"),
        (
            "mart",
            {k: v for k, v in PGD.items() if k != "steps"},
            "'mart' needs the setting 'steps'",
        ),
        ("n-fgsm", LINF | {"norm": "l2"}, "'n-fgsm': setting norm: Input should be 'linf'"),
        ("gradalign", LINF | {"steps": 2}, "'gradalign' has no setting 'steps'"),
        ("free", LINF | {"replays": 2.5}, "'free': setting replays: Input should be a valid int"),
        ("awp", {}, "'awp' needs the setting 'base'"),
        ("awp", {"base": {"name": "pgd", "settings": LINF}}, "'pgd' needs the setting 'steps'"),
    ],
)
def test_bad_settings_are_one_line(name, settings, message):
    with pytest.raises(UsageError, match=message) as error:
        bind(name, settings, *BOX)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [n for n in known_recipes() if n.split("-cnn-")[-1] in METHODS])
def test_shipped_recipes_bind(name):
    objective = load_recipe(name).objective
    bind(objective.name, objective.settings, *BOX)
    assert objective.threat == {"norm": "linf", "eps": 0.1}
