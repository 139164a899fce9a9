"""`robust-train` as users meet it: a trained folder, or one line and an exit code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robustbench_c import data as datasets
from robustbench_c import zoo
from robustbench_c.cli.app import new_app, run_app
from robustbench_c.cli.train import app
from robustbench_c.errors import UsageError
from robustbench_c.training.measure import accuracy
from robustbench_c.training.recipe import known_recipes, load_recipe, override
from robustbench_c.training.run import small_notice


@pytest.fixture(autouse=True)
def _no_drawing(monkeypatch):
    monkeypatch.setattr("robustbench_c.training.loop.draw", lambda *_: None)


def train(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        run_app(app, "robust-train", arguments=[str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def refused(capsys, *arguments: object) -> str:
    """Run what must fail; return its one line, notices aside."""
    code = train(*arguments)
    lines = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in lines if not line.startswith("notice: ")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("robust-train: error: ")
    return f"{code}: {lines[0].removeprefix('robust-train: error: ')}"


TINY = ("--recipe", "breast-cancer-mlp", "--epochs", 3, "--device", "cpu")


PGD = "recipe 'pgd' with these options: objective"


def test_folder_holds_a_model_ready_to_load(tmp_path, capsys):
    assert train(*TINY, "--out", tmp_path / "a") == 0
    out, err = capsys.readouterr()
    assert "robust-eval --model" in out
    assert err.count("epoch ") == 3  # plain lines, for stderr is no terminal
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "breast-cancer-mlp.safetensors",
        "breast-cancer-mlp.json",
        "log.csv",
        "log.jsonl",
    }
    card = json.loads((tmp_path / "a" / "breast-cancer-mlp.json").read_text())
    test = datasets.load("breast-cancer", split="test")
    loaded = zoo.load(str(tmp_path / "a" / "breast-cancer-mlp.safetensors"), device="cpu").module
    assert accuracy(loaded, test.x, test.y) == card["clean_accuracy"]["accuracy"] > 0.8
    assert card["clean_accuracy"]["samples"] == len(test)
    train_split = datasets.load("breast-cancer", split="train")
    assert card["dataset_sha256"] == train_split.sha256
    assert torch.allclose(torch.tensor(card["mean"]), train_split.x.mean(0), rtol=1e-4)


def test_interrupted_and_resumed_gives_the_same_file(tmp_path, capsys, monkeypatch):
    assert train(*TINY, "--out", tmp_path / "a") == 0

    from robustbench_c.cli.train_progress import ConsoleProgress

    def interrupt(self, row):
        if row.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ConsoleProgress, "epoch", interrupt)
        capsys.readouterr()
        assert train(*TINY, "--out", tmp_path / "b") == 130
        assert "robust-train: stopped" in capsys.readouterr().err
    assert not (tmp_path / "b" / "breast-cancer-mlp.json").exists()
    message = refused(capsys, *TINY, "--out", tmp_path / "b")
    assert message.startswith("2: ")
    assert "--resume goes on" in message
    other = refused(capsys, *TINY, "--out", tmp_path / "b", "--resume", "--seed", 1)
    assert other.startswith("6: ")
    assert "config.seed is 0 there and 1 here" in other
    assert train(*TINY, "--out", tmp_path / "b", "--resume") == 0
    name = "breast-cancer-mlp.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_finished_folder_is_only_overwritten_when_told(tmp_path, capsys):
    assert train(*TINY, "--out", tmp_path) == 0
    card = (tmp_path / "breast-cancer-mlp.json").read_text()
    capsys.readouterr()
    assert "already holds a trained" in refused(capsys, *TINY, "--out", tmp_path)
    assert (tmp_path / "breast-cancer-mlp.json").read_text() == card
    assert train(*TINY, "--out", tmp_path, "--seed", 5, "--overwrite") == 0
    assert json.loads((tmp_path / "breast-cancer-mlp.json").read_text())["seed"] == 5


def test_diverging_recipe_leaves_no_card(tmp_path, capsys):
    recipe = tmp_path / "wild.toml"
    text = known_recipes()["breast-cancer-mlp"].read_text()
    text = text.replace('"adamw"', '"sgd"').replace("3e-3", "1e30")
    recipe.write_text(text)
    out = tmp_path / "out"
    message = refused(capsys, "--recipe", recipe, "--out", out, "--device", "cpu")
    assert message.startswith("3: ")
    assert "epoch 1" in message
    assert not list(out.glob("*.json"))
    assert not list(out.glob("*.safetensors"))


def test_adversarial_training_writes_its_threat(tmp_path):
    options = ("--data", "digits", "--eps", 0.2, "--steps", 2, "--epochs", 1, "--name", "d")
    assert train("--recipe", "pgd", "--arch", "mlp", "--out", tmp_path, *options) == 0
    card = json.loads((tmp_path / "d.json").read_text())
    assert card["threat"] == {"norm": "linf", "eps": 0.2}
    row = json.loads((tmp_path / "log.jsonl").read_text())
    assert 0 <= row["validation_robust_accuracy"] <= row["validation_accuracy"]


@pytest.mark.parametrize("recipe", ["ibp", "crown-ibp", "mtl-ibp", "cc-ibp", "sabr"])
def test_certified_training_logs_verified_accuracy(tmp_path, capsys, recipe):
    options = ("--data", "digits", "--arch", "mlp", "--eps", 0.02, "--epochs", 3, "--name", "d")
    assert train("--recipe", recipe, "--out", tmp_path, *options, "--batch-size", 64) == 0
    assert "verified" in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    last = rows[-1]
    assert 0 <= last["validation_verified_accuracy"] <= last["validation_robust_accuracy"]
    assert 0 < rows[0]["eps_scale"] < last["eps_scale"] <= 1
    assert json.loads((tmp_path / "d.json").read_text())["threat"] == {"norm": "linf", "eps": 0.02}


def test_ibp_initialisation_is_a_field_of_the_recipe(tmp_path):
    text = known_recipes()["breast-cancer-mlp"].read_text()
    plain, small = tmp_path / "plain.toml", tmp_path / "small.toml"
    # a learning rate that changes nothing: what is saved is what training starts from
    plain.write_text(text.replace("3e-3", "1e-30"))
    small.write_text('initialise = "ibp"\n' + plain.read_text())
    widths = []
    for recipe in (plain, small):
        out = tmp_path / recipe.stem
        assert train("--recipe", recipe, "--epochs", 1, "--device", "cpu", "--out", out) == 0
        module = zoo.load(str(out / "breast-cancer-mlp.safetensors"), device="cpu").module
        state = {k: v for k, v in module.state_dict().items() if v.dim() == 2 and min(v.shape) > 2}
        widths.append([float(weight.std() * weight.shape[1]) for weight in state.values()])
    assert all(width == pytest.approx(2.507, rel=0.1) for width in widths[1])  # sqrt(2 pi)
    assert all(width != pytest.approx(2.507, rel=0.1) for width in widths[0])
    bad = tmp_path / "bad.toml"
    bad.write_text('initialise = "ipb"\n' + text)
    with pytest.raises(UsageError, match="initialise: Input should be 'ibp'"):
        load_recipe(str(bad))


def test_shipped_cards_name_the_recipe_as_it_is():
    for name, path in known_recipes().items():
        if name in zoo.names():
            assert zoo.card(name).recipe_sha256 == load_recipe(str(path)).sha256, name
            assert zoo.card(name).method == load_recipe(str(path)).method, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "2: give a --recipe"),
        (("--recipe", "pdg"), "2: no recipe 'pdg'; did you mean 'pgd'?"),
        (("--recipe", "none.toml"), "2: cannot read the recipe: none.toml is missing"),
        (("--recipe", "pgd", "--epochs", "0"), "2: recipe 'pgd' with these options: train.epochs"),
        (("--recipe", "pgd", "--epochs", "many"), "2: Invalid value for '--epochs'"),
        (("--recipe", "pgd", "--colour", "red"), "2: No such option"),
        (("--recipe", "standard", "--eps", "0.1"), "2: the objective 'standard' has no eps"),
        (("--recipe", "standard", "--data", "digit"), "4: no dataset 'digit'"),
        (("--recipe", "standard", "--data", "digits", "--arch", "cnnsmall"), "3: no architecture"),
        ((*TINY, "--device", "tpu9"), "2: no device named 'tpu9'"),
        ((*TINY, "--device", "cuda:77"), "2: no CUDA device 'cuda:77'"),
        ((*TINY, "--resume", "--overwrite"), "2: --resume goes on and --overwrite"),
        (("--recipe", "pgd", "--data", "digits", "--eps", "-1"), f"2: {PGD}: eps is -1"),
        (("--recipe", "pgd", "--data", "digits", "--eps", "nan"), f"2: {PGD}: eps is nan"),
        (("--recipe", "pgd", "--data", "digits", "--steps", "0"), f"2: {PGD}: steps is 0"),
        (
            ("--recipe", "pgd", "--data", "digits", "--step-size", "0"),
            f"2: {PGD}: step_size is 0: it must be positive",
        ),
        (
            ("--recipe", "awp", "--data", "digits", "--steps", "0"),
            "2: recipe 'awp' with these options: objective: steps is 0: it must be at least 1",
        ),
        (
            ("--recipe", "sparsevlr", "--data", "digits", "--clients", "3"),
            "2: recipe 'sparsevlr' with these options: federated training is of dense models",
        ),
        (
            (*TINY, "--clients", "3", "--keep", "best-robust"),
            "2: train.keep is 'best-robust': federated training keeps the last round",
        ),
        (
            ("--recipe", "pgd", "--data", "digits", "--norm", "l7"),
            "2: the objective 'pgd': setting norm",
        ),
        (("--recipe", "ibp", "--norm", "l2"), "2: the objective 'ibp': setting norm: Input should"),
        (
            ("--recipe", "ibp", "--eps", "-1"),
            "2: recipe 'ibp' with these options: objective: eps is -1: it must be finite",
        ),
        (
            ("--recipe", "sabr", "--steps", "-1"),
            "2: recipe 'sabr' with these options: objective: steps is -1: it must be at least 1",
        ),
    ],
)
def test_bad_requests_are_one_line(tmp_path, capsys, arguments, message):
    assert refused(capsys, *arguments, "--out", tmp_path / "out").startswith(message)
    assert not (tmp_path / "out").exists()


def test_bad_numbers_are_refused_before_data_are_read(tmp_path, capsys, monkeypatch):
    def reads(*_, **__):
        raise AssertionError("data were read")

    monkeypatch.setattr("robustbench_c.training.run.datasets.load", reads)
    for bad in (("--eps", -1), ("--eps", "nan"), ("--eps", "inf"), ("--steps", 0)):
        message = refused(capsys, "--recipe", "pgd", *bad, "--out", tmp_path / "out")
        assert message.startswith(f"2: {PGD}: {bad[0][2:]} is ")


def test_a_recipes_own_keep_and_average_are_left_out_with_clients(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("robustbench_c.training.federated.draw", lambda *_: None)
    text = known_recipes()["breast-cancer-mlp"].read_text()
    recipe = tmp_path / "r.toml"
    recipe.write_text(text.replace("[train]", '[train]\nkeep = "best-robust"\nema_decay = 0.9'))
    given = ("--recipe", recipe, "--epochs", 1, "--device", "cpu", "--clients", 2)
    assert train(*given, "--validation", 0.2, "--out", tmp_path / "a") == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("notice: ")]
    assert told == [
        f"notice: the recipe's {setting} does not go with clients: it is left out"
        for setting in ('keep = "best-robust"', "ema_decay = 0.9")
    ]
    message = refused(capsys, *TINY, "--clients", 2, "--ema-decay", 0.9, "--out", tmp_path / "b")
    assert message.startswith("2: train.ema_decay is 0.9: federated training averages over clients")


def test_an_eps_in_raw_units_that_attacks_nothing_is_noticed(tmp_path, capsys):
    given = ("--recipe", "pgd", "--arch", "mlp", "--epochs", 1, "--steps", 1, "--device", "cpu")
    assert train(*given, "--data", "breast-cancer", "--name", "b", "--out", tmp_path / "b") == 0
    (told,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("notice: ")]
    assert "eps 0.1 is in the data's own units: below 1% of the range of " in told
    assert "of 30 features" in told
    train_split = datasets.load("digits", split="train")
    assert small_notice({"norm": "linf", "eps": 0.1}, train_split) is None
    assert small_notice({"norm": "linf", "eps": 0.0}, train_split) is None
    assert "of 64 of 64 features" in str(small_notice({"norm": "linf", "eps": 0.001}, train_split))


def test_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    message = refused(capsys, *TINY, "--out", tmp_path / "file" / "out")
    assert message.startswith("6: cannot make the folder")


def test_list_shows_every_recipe_and_each_is_legal(capsys):
    assert train("--list") == 0
    shown = capsys.readouterr().out
    for name in known_recipes():
        assert name in shown
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.train.validation > 0


def test_help_does_not_import_torch():
    code = (
        "import sys\nfrom robustbench_c.cli.train import main\nsys.argv[1:] = ['--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nassert 'torch' not in sys.modules"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True)


def test_step_size_keeps_its_ratio_to_eps_and_steps():
    recipe = load_recipe("pgd")  # eps 0.1, 7 steps of 0.03
    scaled = override(recipe, {"eps": 0.2, "steps": 14})
    assert scaled.objective.settings["step_size"] == pytest.approx(0.03)
    given = override(recipe, {"eps": 0.2, "step_size": 0.01})
    assert given.objective.settings["step_size"] == 0.01
    assert override(recipe, {"epochs": 3}).objective == recipe.objective
    short = override(load_recipe("ibp"), {"epochs": 4})  # 40 epochs, 15 of them warm-up
    assert short.train.eps_warmup_epochs == 1.5


def test_another_architecture_drops_the_arguments_of_the_old_one():
    recipe = load_recipe("breast-cancer-mlp")
    assert override(recipe, {"architecture": "mlp"}).architecture == recipe.architecture
    assert override(recipe, {"architecture": "cnn7"}).architecture.arguments == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 40", "epochs = forty", "is not TOML"),
        ("epochs = 40", "epoch = 40", r"train.epochs: Field required"),
        ('schedule = "cosine"', 'schedule = "cosin"', r"train.schedule: Input should be"),
        ('normalise = "data"', "normalise = {mean=[0.5], std=[0.0]}", "not positive"),
        ('name = "breast-cancer-mlp"', 'name = "../x"', r"name: String should match"),
    ],
)
def test_bad_recipe_files_are_one_line(tmp_path, old, new, message):
    text = known_recipes()["breast-cancer-mlp"].read_text()
    assert old in text
    path = tmp_path / "r.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=message) as error:
        load_recipe(str(path))
    assert "\n" not in str(error.value)


class ForeignError(ValueError):
    exit_code = 5


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ForeignError("eps is\nbad"), 5, "x: error: eps is bad"),
        (OSError(28, "No space left on device", "/f"), 6, "x: error: No space left on device: /f"),
        (PermissionError(13, "Permission denied", "/f"), 6, "x: error: Permission denied: /f"),
        (KeyboardInterrupt(), 130, "x: gone"),
    ],
)
def test_any_command_ends_in_one_line(capsys, error, code, line):
    failing = new_app()

    @failing.command()
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_app(failing, "x", stopped="gone", arguments=[])
    assert ended.value.code == code
    assert capsys.readouterr().err.strip() == line


def test_a_defect_keeps_its_traceback():
    failing = new_app()

    @failing.command()
    def command() -> None:
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError):
        run_app(failing, "x", arguments=[])


ROBUST = (*TINY, "--objective", "pgd", "--eps", 0.02, "--validation", 0.2)


def test_clients_train_together_and_each_is_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("robustbench_c.training.federated.draw", lambda *_: None)
    given = (*ROBUST, "--clients", 3, "--alpha", 0.3, "--out", tmp_path / "a")
    assert train(*given) == 0
    report = json.loads((tmp_path / "a" / "clients.json").read_text())
    out = capsys.readouterr().out
    rows = re.findall(r"│ (\d) +│ (\d+) +│ (\d+) +│ (\d+ \d+) +│ [\d.-]+%? +│ [\d.-]+%? +│", out)
    assert [tuple(map(int, row[:3])) for row in rows] == [
        (c["client"], c["samples"], c["held_out"]) for c in report
    ]
    assert len(report) == 3
    assert "multiple of local_epochs" in refused(
        capsys, *given[:-1], tmp_path / "b", "--local-epochs", 2
    )
    assert "has no clients" in refused(capsys, *ROBUST, "--alpha", 0.3, "--out", tmp_path / "b")


def test_early_stopping_and_the_moving_average_are_options(tmp_path, capsys):
    given = (*ROBUST, "--keep", "best-robust", "--ema-decay", 0.9)
    assert train(*given, "--out", tmp_path / "a") == 0
    rows = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert max(row["validation_robust_accuracy"] for row in rows) > 0.5
    capsys.readouterr()
    assert "train.keep" in refused(capsys, *TINY, "--keep", "best", "--out", tmp_path / "b")
    assert "held-out" in refused(capsys, *TINY, "--keep", "best-robust", "--out", tmp_path / "b")
