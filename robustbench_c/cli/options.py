"""Options that several commands share, and how their texts become values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustbench_c.errors import DataError, UsageError, one_line

if TYPE_CHECKING:
    from robustbench_c.data import Dataset
    from robustbench_c.zoo import ModelCache
    from robustbench_c.zoo.cards import Card
    from robustbench_c.zoo.loading import LoadedModel

Model = Annotated[
    str | None,
    typer.Option(help="Zoo name, .safetensors, .pt/.pth, .onnx, module:factory or .pt2 program."),
]
Data = Annotated[str | None, typer.Option(help="Data set by name, or .npz, .csv, image folder.")]
DataDir = Annotated[Path | None, typer.Option(help="Where the data's files lie.")]
Split = Annotated[str, typer.Option(help="train, test or all.")]
LabelColumn = Annotated[str | None, typer.Option(help="Label column of a .csv.")]
Box = Annotated[str | None, typer.Option(help="Input box of one's own data, as LOWER,UPPER.")]
Arch = Annotated[str | None, typer.Option(help="Architecture of a checkpoint without a card.")]
ArchArgs = Annotated[
    str | None, typer.Option(help="""Its arguments as JSON, such as '{"widths": [64, 64]}'.""")
]
Mean = Annotated[str | None, typer.Option(help="Normalisation inside the model: M or M1,M2,M3.")]
Std = Annotated[str | None, typer.Option(help="Likewise.")]
Trust = Annotated[
    bool, typer.Option("--trust-checkpoint", help="Allow a checkpoint that runs code.")
]
MaxMemory = Annotated[
    str | None,
    typer.Option(help="Most memory of the process (on CUDA: of the device), such as 2G [any]."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]

_resident: dict[str, ModelCache] | None = None
_SHIPPED = {"fashion-mnist": "fashion-mnist-mini"}
"""Data sets that need a download, and the part of them that is in the package."""


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Read `1,2,3`.

    Raises:
        UsageError: Not a list of numbers.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} '{text}' is not a list of numbers like 0.5,0.5") from None


def load_data(
    name: str,
    split: str,
    data_dir: Path | None,
    label_column: str | None,
    box: str | None,
) -> Dataset:
    """Load the data that the options name."""
    from robustbench_c import data

    if not name.strip():
        raise UsageError("--data is empty: give a set of data or a file")
    ends = numbers(box, "--box")
    if ends is not None and len(ends) != 2:
        raise UsageError(f"--box '{box}' is not of the form LOWER,UPPER")
    pair = None if ends is None else (ends[0], ends[1])
    return data.load(name, split=split, data_dir=data_dir, label_column=label_column, box=pair)


def data_of(card: Card | None) -> str:
    """Return the data that a model's card names, or the part of them that is in the package.

    Raises:
        UsageError: There is none.
    """
    if card is None or card.data is None:
        raise UsageError("give --data: the model has no card that names its own")
    return _SHIPPED.get(card.data, card.data)


def card_of(model: str) -> Card | None:
    """Return the card of a model of the zoo, or the one beside a weight file; None without.

    Raises:
        ModelError: There is no such model.
    """
    from robustbench_c import zoo
    from robustbench_c.zoo.cards import read_card
    from robustbench_c.zoo.files import is_there

    if not model.strip():
        raise UsageError("--model is empty: give a zoo name or a file")
    if model in zoo.names():
        return zoo.card(model)
    path = Path(model)
    if ":" not in model and not is_there(path):
        zoo.load(model)  # says what is missing, and what may have been meant
    if path.suffix != ".safetensors" or not is_there(path.with_suffix(".json")):
        return None
    return read_card(path.with_suffix(".json"))


def arguments(text: str | None) -> dict[str, object] | None:
    """The arguments of an architecture, from JSON.

    Raises:
        UsageError: It is no JSON object.
    """
    try:
        found = None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f"--arch-args '{one_line(text or '', 80)}' is not JSON") from None
    if found is not None and not isinstance(found, dict):
        raise UsageError(f"--arch-args '{one_line(text or '', 80)}' is not a JSON object")
    return found


def load_model(
    name: str,
    card: Card | None,
    data: Dataset,
    device: str,
    arch: str | None,
    arch_args: str | None,
    mean: str | None,
    std: str | None,
    trust: bool,
) -> LoadedModel:
    """Load the model that the options name, for samples of these data.

    A model with a card knows its classes; unnamed data may show fewer of them.
    """
    from robustbench_c import zoo

    load = zoo.load if _resident is None else _resident_on(device)
    if card is not None and card.input_shape != data.shape:
        raise DataError(
            f"'{card.name}' takes samples of shape {card.input_shape}, but those of {data.name} "
            f"have the shape {data.shape}"
        )
    return load(
        name,
        device,
        arch=arch,
        arch_args=arguments(arch_args),
        mean=numbers(mean, "--mean"),
        std=numbers(std, "--std"),
        input_shape=data.shape,
        n_classes=None if card else data.n_classes,
        trust_checkpoint=trust,
    )


@contextmanager
def resident_models() -> Iterator[None]:
    """Keep the models that `load_model` loads for those who ask again, while the block runs."""
    global _resident
    _resident = {}
    try:
        yield
    finally:
        _resident = None


def _resident_on(device: str) -> Callable[..., LoadedModel]:
    from robustbench_c.zoo import ModelCache
    from robustbench_c.zoo.devices import parse_device

    assert _resident is not None
    if device not in _resident:
        budget = None
        if parse_device(device).type == "cuda":
            import torch

            budget = torch.cuda.get_device_properties(parse_device(device)).total_memory // 4
        _resident[device] = ModelCache(device, budget)
    cache = _resident[device]
    return lambda name, _, **arguments: cache.get(name, **arguments)


def room_of(context: typer.Context) -> int | None:
    """Return the bytes that `--max-memory` allows, or None.

    Raises:
        UsageError: It is no amount of memory.
    """
    from robustbench_c.memory import parse_size

    text = context.params["max_memory"]
    return None if text is None else parse_size(text, "--max-memory")


def pick_device(name: str) -> str:
    """Return the device that "auto" stands for here, or the name itself."""
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def is_given(context: typer.Context, option: str) -> bool:
    """Whether the user set an option (and not its default)."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def given_of(context: typer.Context, names: tuple[str, ...]) -> str | None:
    """Return the first of these options that the user set, as it is written, or None."""
    found = next((name for name in names if is_given(context, name)), None)
    return None if found is None else f"--{found.replace('_', '-')}"
