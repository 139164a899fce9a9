"""The model cache: budget, order of eviction, leases, threads."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from robustbench_c import zoo
from robustbench_c.errors import ModelError, UsageError

SIZE = 4 * (4 * 3 + 3)  # one linear layer, 4 to 3, in float32


@pytest.fixture
def models(tmp_path: Path) -> dict[str, str]:
    paths = {}
    for name in "abc":
        draft = zoo.Draft(
            name=name,
            architecture="mlp",
            arguments={"widths": ()},
            input_shape=(4,),
            classes=("x", "y", "z"),
            licence="MIT",
        )
        zoo.save(zoo.build("mlp", (4,), 3, widths=()), draft, tmp_path)
        paths[name] = str(tmp_path / f"{name}.safetensors")
    return paths


def test_the_least_recently_used_leaves_and_returns_unchanged(models: dict[str, str]) -> None:
    cache = zoo.ModelCache("cpu", budget_bytes=2 * SIZE)
    x = torch.rand(5, 4)
    first = cache.get(models["a"])
    logits = first.module(x)
    cache.get(models["b"])
    assert cache.get(models["a"]) is first
    assert cache.statistics == zoo.CacheStatistics(hits=1, loads=2, resident_bytes=2 * SIZE)
    cache.get(models["c"])  # b leaves: a was used after it
    assert cache.get(models["a"]) is first
    assert cache.statistics == zoo.CacheStatistics(
        hits=2, loads=3, evictions=1, resident_bytes=2 * SIZE
    )
    Path(models["b"]).unlink()  # a return does not read the disk
    cache.get(models["b"])
    cache.get(models["c"])  # a leaves
    assert torch.equal(cache.get(models["a"]).module(x), logits)
    statistics = cache.statistics
    assert (statistics.loads, statistics.returns, statistics.evictions) == (3, 3, 4)
    assert statistics.resident_bytes == 2 * SIZE


def test_no_budget_no_eviction(models: dict[str, str]) -> None:
    cache = zoo.ModelCache()
    for path in models.values():
        cache.get(path)
    assert cache.statistics == zoo.CacheStatistics(loads=3, resident_bytes=3 * SIZE)


def test_other_arguments_are_another_model(models: dict[str, str], tmp_path: Path) -> None:
    torch.save(zoo.build("mlp", (4,), 3, widths=()).state_dict(), tmp_path / "d.pt")
    cache = zoo.ModelCache()
    settings = {"arch": "mlp", "arch_args": {"widths": ()}, "input_shape": (4,), "n_classes": 3}
    bare = cache.get(str(tmp_path / "d.pt"), **settings)
    scaled = cache.get(str(tmp_path / "d.pt"), **settings, mean=[0.0] * 4, std=[2.0] * 4)
    assert bare.sha256 != scaled.sha256
    assert cache.statistics.loads == 2


def test_a_leased_model_stays(models: dict[str, str]) -> None:
    cache = zoo.ModelCache("cpu", budget_bytes=2 * SIZE)
    with cache.lease(models["a"]) as leased:
        for name in "bcbc":
            cache.get(models[name])
        assert cache.get(models["a"]) is leased
        assert cache.statistics.hits == 1  # it never left
        with (
            cache.lease(models["b"]),
            pytest.raises(ModelError, match=r"c takes 60 bytes.*in use are: [ab], [ab]"),
        ):
            cache.get(models["c"])
    cache.get(models["b"])
    cache.get(models["c"])  # the lease has ended: a leaves
    before = cache.statistics.returns
    cache.get(models["a"])
    assert cache.statistics.returns == before + 1


def test_a_lease_ends_with_an_error(models: dict[str, str]) -> None:
    cache = zoo.ModelCache("cpu", budget_bytes=SIZE)
    with pytest.raises(ZeroDivisionError), cache.lease(models["a"]):
        raise ZeroDivisionError
    assert cache.get(models["b"]).name == "b"


def test_a_model_larger_than_the_budget(models: dict[str, str]) -> None:
    cache = zoo.ModelCache("cpu", budget_bytes=SIZE - 1)
    with pytest.raises(ModelError, match="a takes 60 bytes; the model cache holds 59"):
        cache.get(models["a"])
    assert cache.statistics.resident_bytes == 0


def test_no_such_device() -> None:
    with pytest.raises(UsageError, match="gpu"):
        zoo.ModelCache("gpu")


def test_a_moved_model_goes_where_the_cache_says(
    models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Record the moves, as a second device would see them."""
    moves: list[str] = []
    to: Callable[..., torch.nn.Module] = torch.nn.Module.to

    def recorded(self: torch.nn.Module, device: object) -> torch.nn.Module:
        moves.append(str(device))
        return to(self, "cpu")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    cache = zoo.ModelCache("cuda", budget_bytes=SIZE)
    monkeypatch.setattr(torch.nn.Module, "to", recorded)
    cache.get(models["a"])
    cache.get(models["b"])
    assert moves == ["cpu", "cuda", "cpu", "cpu", "cuda"]  # load a, a on; load b, a off, b on


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_eviction_on_a_gpu_is_bit_exact(models: dict[str, str]) -> None:
    cache = zoo.ModelCache("cuda", budget_bytes=SIZE)
    x = torch.rand(5, 4, device="cuda")
    model = cache.get(models["a"])
    logits = model.module(x)
    cache.get(models["b"])
    assert {parameter.device.type for parameter in model.module.parameters()} == {"cpu"}
    assert torch.equal(cache.get(models["a"]).module(x), logits)


def test_threads_share_a_cache(models: dict[str, str]) -> None:
    cache = zoo.ModelCache("cpu", budget_bytes=2 * SIZE)
    x = torch.rand(5, 4)
    expected = {name: zoo.load(path).module(x) for name, path in models.items()}
    faults: list[object] = []
    one_at_a_time = threading.Semaphore(2)  # more leases than fit would rightly be refused

    def work(offset: int) -> None:
        try:
            for step in range(60):
                name = "abc"[(step + offset) % 3]
                with one_at_a_time, cache.lease(models[name]) as model:
                    if not torch.equal(model.module(x), expected[name]):
                        faults.append(name)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    statistics = cache.statistics
    assert statistics.loads == 3
    assert statistics.hits + statistics.loads + statistics.returns == 240
    assert statistics.resident_bytes <= 2 * SIZE
    assert statistics.loads + statistics.returns - statistics.evictions <= 2
