"""Bad models: checkpoints, weights with cards that lie, code that fails."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_cases import ESCAPE
from bad_makers import JUNK, Make, Runs, cut, data, huge, loop, text, zero

CODE = """
import torch

class Nan(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
    def forward(self, x):
        return self.layer(x) * torch.nan

class Wide(torch.nn.Linear):
    def __init__(self):
        super().__init__(9, 2)

class Loud(torch.nn.Module):
    def forward(self, x):
        raise RuntimeError(CODE * 500)

def means():
    return torch.nn.Linear(4, 2)

def takes_arguments(one, two):
    return means()

def fails():
    raise OSError(CODE)

def leaves():
    raise SystemExit(0)

def nothing():
    return None

CODE = '\\x1b[31mred\\nline '
"""


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": Runs()}))


def state(change: Callable[[dict[str, Any]], object] = lambda tensors: None) -> Make:
    """A torch checkpoint of an MLP of 4-3-2, changed."""

    def make(path: Path) -> None:
        import torch

        tensors = tensors_of()
        torch.save(change(tensors) or tensors, path)

    return make


def tensors_of() -> dict[str, Any]:
    from robustbench_c import zoo

    return dict(zoo.build("mlp", (4,), 2, widths=[3]).state_dict())


def safe(path: Path) -> None:
    import safetensors.torch

    safetensors.torch.save_file(tensors_of(), path)


def safe_header(header: bytes, length: int | None = None, body: bytes = b"") -> Make:
    told = len(header) if length is None else length
    return data(struct.pack("<Q", told) + header + body)


def carded(**changes: Any) -> Make:
    """A sound weight file whose card has these changes."""

    def make(path: Path) -> None:
        from robustbench_c import zoo
        from robustbench_c.zoo.cards import Draft

        draft = Draft(
            name=path.stem,
            architecture="mlp",
            arguments={"widths": (3,)},
            input_shape=(4,),
            classes=("a", "b"),
            licence="MIT",
        )
        zoo.save(zoo.build("mlp", (4,), 2, widths=[3]), draft, path.parent)
        card = path.with_suffix(".json")
        told = json.loads(card.read_text()) | changes
        card.write_text(json.dumps(told))

    return make


def with_card(content: Make) -> Make:
    """A sound weight file with something else where its card is."""

    def make(path: Path) -> None:
        safe(path)
        content(path.with_suffix(".json"))

    return make


def same(tensors: dict[str, Any], fill: float) -> None:
    for tensor in tensors.values():
        tensor.fill_(fill)


MODEL_FILES: dict[str, Make] = {
    "code.py": text(CODE),
    "broken.py": text("def make(:\n"),
    "exits.py": text("raise SystemExit(3)\n"),
    "imports.py": text("import a_package_that_is_not_there\n"),
    "good.pt": state(),
    "good.safetensors": safe,
    "empty.pt": data(b""),
    "junk.pt": data(JUNK),
    "zeros.pt": data(bytes(4096)),
    "page.pt": data(b"<!DOCTYPE html><title>404</title>"),
    "pointer.pt": data(b"version https://git-lfs.github.com/spec/v1\n"),
    "huge.pt": huge(9 << 30),
    "loop.pt": loop,
    "pipe.pt": os.mkfifo,
    "zero.pt": zero,
    "folder.pt": Path.mkdir,
    "cut.pt": cut(state(), 0.6),
    "code.pt": state(lambda tensors: {"state_dict": Runs()}),
    "pickle.pt": pickled,
    "numbers.pt": state(lambda tensors: {"a": 1, "b": 2}),
    "list.pt": state(lambda tensors: [1, 2]),
    "none.pt": state(lambda tensors: {"state_dict": {}}),
    "nested.pt": state(lambda tensors: {"model": {"model": {"model": {"model": {"model": {}}}}}}),
    "nan.pt": state(lambda tensors: same(tensors, float("nan"))),
    "inf.pt": state(lambda tensors: same(tensors, float("inf"))),
    "missing.pt": state(lambda tensors: {k: v for k, v in tensors.items() if "bias" not in k}),
    "more.pt": state(lambda tensors: tensors | {ESCAPE: next(iter(tensors.values()))}),
    "shapes.pt": state(lambda tensors: {k: v[:1] for k, v in tensors.items()}),
    "integers.pt": state(lambda tensors: {k: v.long() for k, v in tensors.items()}),
    "complex.pt": state(lambda tensors: {k: v + 1j for k, v in tensors.items()}),
    "sparse.pt": state(lambda tensors: {k: v.to_sparse() for k, v in tensors.items()}),
    "meta.pt": state(lambda tensors: {k: v.to("meta") for k, v in tensors.items()}),
    "numbered.pt": state(lambda tensors: dict(enumerate(tensors.values()))),
    "empty.safetensors": data(b""),
    "junk.safetensors": data(JUNK),
    "cut.safetensors": cut(safe, 0.7),
    "loop.safetensors": loop,
    "pipe.safetensors": os.mkfifo,
    "folder.safetensors": Path.mkdir,
    "header-huge.safetensors": safe_header(b"{}", 2**60),
    "header-long.safetensors": safe_header(b"{}", 2**20),
    "header-list.safetensors": safe_header(b"[]"),
    "header-deep.safetensors": safe_header(b"[" * 100_000),
    "header-empty.safetensors": safe_header(b"{}"),
    "header-dtype.safetensors": safe_header(
        b'{"a": {"dtype": "F4096", "shape": [1], "data_offsets": [0, 4]}}', None, bytes(4)
    ),
    "header-offsets.safetensors": safe_header(
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}}', None, bytes(8)
    ),
    "header-shape.safetensors": safe_header(
        b'{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 4]}}',
        None,
        bytes(4),
    ),
    "card-hash.safetensors": carded(sha256="0" * 64),
    "card-arch.safetensors": carded(architecture="transformer"),
    "card-widths.safetensors": carded(arguments={"widths": [10**9]}),
    "card-argument.safetensors": carded(arguments={"colour": 1}),
    "card-wide.safetensors": carded(arguments={"widths": [5]}),
    "card-shape.safetensors": carded(input_shape=[7]),
    "card-shape-0.safetensors": carded(input_shape=[0]),
    "card-shape-huge.safetensors": carded(input_shape=[2**40]),
    "card-classes.safetensors": carded(classes=["a", "b", "c"]),
    "card-mean.safetensors": carded(mean=[0.5], std=[1.0]),
    "card-std.safetensors": carded(mean=[0.5] * 4, std=[0.0] * 4),
    "card-name.safetensors": carded(name="../../escape"),
    "card-extra.safetensors": carded(**{ESCAPE: 1}),
    "card-version.safetensors": carded(schema_version=99),
    "card-data.safetensors": carded(data="../etc/passwd"),
    "card-junk.safetensors": with_card(data(JUNK)),
    "card-empty.safetensors": with_card(data(b"")),
    "card-huge.safetensors": with_card(huge(2 << 20)),
    "card-deep.safetensors": with_card(text('{"a":' * 100_000)),
    "card-list.safetensors": with_card(text("[]")),
    "card-folder.safetensors": with_card(Path.mkdir),
    "card-pipe.safetensors": with_card(os.mkfifo),
    "card-loop.safetensors": with_card(loop),
    "empty.pt2": data(b""),
    "junk.pt2": data(JUNK),
    "model.h5": data(b"x"),
}
