"""Models that run code: refused until trusted, then checked like any other."""

import copy
import os
import pickle
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustbench_c import zoo
from robustbench_c.errors import ModelError

SOURCE = """
import torch
from pathlib import Path
Path(__file__).with_name("ran").touch()

def make(bias=0.0):
    layer = torch.nn.Linear(2, 2)
    torch.nn.init.eye_(layer.weight)
    torch.nn.init.constant_(layer.bias, bias)
    return layer

def broken():
    raise RuntimeError("no\\nweights here")

def leave():
    raise SystemExit(1)

def double():
    return make().double()

def bad():
    return make(float("nan"))

def lazy():
    return torch.nn.LazyLinear(2)

three = lambda: 3
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "torch.py"  # a name that would shadow torch if it were imported by name
    path.write_text(SOURCE)
    return path


def refusal(name: object, **options: object) -> str:
    with pytest.raises(ModelError) as caught:
        zoo.load(str(name), **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_factory_runs_only_when_trusted(code: Path) -> None:
    assert "give --trust-checkpoint" in refusal(f"{code}:make")
    assert not code.with_name("ran").exists()
    model = zoo.load(f"{code}:make", trust_checkpoint=True, arch_args={"bias": 2.0})
    assert code.with_name("ran").exists()
    assert torch.equal(model.module(torch.ones(1, 2)), torch.full((1, 2), 3.0))
    assert not model.module.training
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert model.name == model.architecture == "torch.py:make"  # not where it lies
    assert sys.modules["torch"] is torch


def test_the_hash_of_a_factory_covers_its_code(code: Path, tmp_path: Path) -> None:
    first = zoo.load(f"{code}:make", trust_checkpoint=True)
    moved = tmp_path / "elsewhere.py"
    moved.write_text(SOURCE)
    assert zoo.load(f"{moved}:make", trust_checkpoint=True).sha256 == first.sha256
    moved.write_text(SOURCE + "\n# changed\n")
    assert zoo.load(f"{moved}:make", trust_checkpoint=True).sha256 != first.sha256


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("broken", "RuntimeError: no weights here"),
        ("leave", "SystemExit"),
        ("absent", "AttributeError"),
        ("three", "returned a int"),
        ("bad", "2 of 2 values of bias are NaN or Inf"),
        ("lazy", "has no values yet"),
    ],
)
def test_a_bad_factory_is_one_line(code: Path, factory: str, words: str) -> None:
    assert words in refusal(f"{code}:{factory}", trust_checkpoint=True)


def test_factories_by_module_name_and_their_options(code: Path) -> None:
    assert "ModuleNotFoundError" in refusal("no_such_module:f", trust_checkpoint=True)
    assert "no such file" in refusal("no_such_file.py:f", trust_checkpoint=True)
    assert "--arch does not apply" in refusal(f"{code}:make", trust_checkpoint=True, arch="mlp")
    identity = zoo.load("torch.nn:Identity", trust_checkpoint=True)
    assert identity.architecture == "torch.nn:Identity"
    model = zoo.load(
        f"{code}:make", trust_checkpoint=True, mean=[1.0, 1.0], std=[2.0, 2.0], input_shape=(2,)
    )
    assert torch.equal(model.module(torch.zeros(1, 2)), torch.full((1, 2), -0.5))
    notices = zoo.load(f"{code}:double", trust_checkpoint=True).notices
    assert notices == (
        "converted weights from torch.float64 to float32",
        "the model was in training mode: it was set to evaluation mode",
    )


class Net(nn.Module):
    """A module that only a pickle knows."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        out: Tensor = self.fc(x)
        return out


def test_a_whole_pickled_module_loads_when_trusted(tmp_path: Path) -> None:
    net = Net()
    for held in (net, {"model": net, "epoch": 3}):
        torch.save(held, tmp_path / "a.pt")
        assert "Net" in refusal(tmp_path / "a.pt")
        model = zoo.load(str(tmp_path / "a.pt"), trust_checkpoint=True)
        assert torch.equal(model.module(torch.ones(1, 2)), net(torch.ones(1, 2)))
        assert model.architecture.endswith(".Net")
    torch.save(3, tmp_path / "a.pt")
    assert "type int" in refusal(tmp_path / "a.pt", trust_checkpoint=True)


class _Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_hostile_pickle_does_not_run(tmp_path: Path) -> None:
    path, target = tmp_path / "a.pt", tmp_path / "pwned"
    torch.save({"state_dict": _Attack(target)}, path)
    assert "mkdir" in refusal(path)
    path.write_bytes(pickle.dumps(_Attack(target)))
    refusal(path)
    (tmp_path / "storages").write_bytes(pickle.dumps(_Attack(target)))
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path / "storages", "storages")
    assert "legacy tar format" in refusal(path)
    assert not target.exists()


class Positions(nn.Module):
    """Makes a tensor on a device of its own accord, as transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.register_buffer("shift", torch.rand(4))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        out: Tensor = self.fc(x + self.shift + torch.arange(4, device=x.device))
        return out


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    path, net = tmp_path_factory.mktemp("program") / "net.pt2", Positions().eval()
    dynamic = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(net, (torch.rand(2, 4),), dynamic_shapes=dynamic), path)
    return path, net


def test_an_exported_program(program: tuple[Path, nn.Module]) -> None:
    path, net = program
    assert "give --trust-checkpoint" in refusal(path)
    model = zoo.load(str(path), trust_checkpoint=True)
    x = torch.rand(5, 4, requires_grad=True)
    assert torch.equal(model.module(x), net(x))
    gradient = torch.autograd.grad(model.module(x).sum(), x)[0]
    assert torch.equal(gradient, torch.autograd.grad(net(x).sum(), x)[0])
    assert not any(part.training for part in model.module.modules())
    model.module.eval()
    assert model.sha256 == zoo.load(str(path), trust_checkpoint=True).sha256
    assert "--arch does not apply" in refusal(path, trust_checkpoint=True, arch="mlp")


def test_an_exported_program_moves_with_the_devices_in_its_graph(
    program: tuple[Path, nn.Module],
) -> None:
    path, net = program
    module = zoo.load(str(path), trust_checkpoint=True).module
    elsewhere = copy.deepcopy(module).to("meta")
    assert elsewhere(torch.rand(5, 4, device="meta")).is_meta
    x = torch.rand(5, 4)
    assert torch.equal(module.to("cpu")(x), net(x))


def test_bad_programs(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(nn.Linear(4, 3), (torch.rand(2, 4),)), path)
    assert "batches of 2 only" in refusal(path, trust_checkpoint=True)
    path.write_bytes(path.read_bytes()[:500])
    assert "is not an exported program" in refusal(path, trust_checkpoint=True)
