"""Bad protocols and recipes, and what is no TOML at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bad_cases import ESCAPE

PROTOCOL = """
name = "mine-v1"
description = "Mine."
data = "fashion-mnist-mini"
norm = "linf"
eps = 0.1
steps = 4
restarts = 1
step_size = 0.025
loss = "ce"
goal = "untargeted"
"""
RECIPE = """
name = "mine"
data = "digits"

[architecture]
name = "mlp"
arguments = { widths = [4] }

[objective]
name = "pgd"
settings = { norm = "linf", eps = 0.1, steps = 2, step_size = 0.05 }

[train]
epochs = 1
batch_size = 64
optimiser = "adam"
learning_rate = 1e-3
"""


def changed(whole: str, old: str, new: str) -> Callable[[Path], object]:
    assert old in whole
    return lambda path: path.write_text(whole.replace(old, new), encoding="utf-8")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"#")
        file.truncate(3 << 30)


TOML_FILES: dict[str, Callable[[Path], object]] = {
    "good.toml": changed(RECIPE, "mine", "mine"),
    "empty.toml": Path.touch,
    "folder.toml": Path.mkdir,
    "loop.toml": lambda path: path.symlink_to(path.name),
    "pipe.toml": os.mkfifo,
    "zero.toml": lambda path: path.symlink_to("/dev/zero"),
    "huge.toml": huge,
    "junk.toml": lambda path: path.write_bytes(bytes(range(256))),
    "text.toml": lambda path: path.write_text("what is this?"),
    "escape-inside.toml": lambda path: path.write_text(f"a = '{ESCAPE}'", encoding="utf-8"),
    "deep.toml": lambda path: path.write_text("a = " + "[" * 5000 + "]" * 5000),
    "deep-tables.toml": lambda path: path.write_text("[" + ".".join("a" * 5000) + "]\nb = 1\n"),
    "recipe.toml": changed(RECIPE, "mine", "mine"),
    "types.toml": changed(PROTOCOL, "steps = 4", 'steps = "many"'),
    "eps-nan.toml": changed(PROTOCOL, "eps = 0.1", "eps = nan"),
    "norm.toml": changed(PROTOCOL, "linf", "l3"),
    "steps-0.toml": changed(PROTOCOL, "steps = 4", "steps = 0"),
    "steps-huge.toml": changed(PROTOCOL, "steps = 4", f"steps = {10**15}"),
    "extra.toml": changed(PROTOCOL, "steps", "colour = 1\nsteps"),
    "escape.toml": changed(PROTOCOL, '"mine-v1"', '"\\u001b[31mred"'),
    "data.toml": changed(PROTOCOL, "fashion-mnist-mini", "\\u001b[31mred"),
    "certify.toml": changed(PROTOCOL, "goal", 'certify = "magic"\ngoal'),
    "protocol.toml": changed(PROTOCOL, "mine", "mine"),
    "name.toml": changed(RECIPE, '"mine"', '"../mine"'),
    "name-escape.toml": changed(RECIPE, '"mine"', '"\\u001b[31mred"'),
    "no-train.toml": changed(RECIPE, "[train]", "[trian]"),
    "arch.toml": changed(RECIPE, '"mlp"', '"mpl"'),
    "widths.toml": changed(RECIPE, "[4]", "[-4]"),
    "widths-huge.toml": changed(RECIPE, "[4]", f"[{10**12}]"),
    "objective.toml": changed(RECIPE, '"pgd"', '"pdg"'),
    "setting.toml": changed(RECIPE, "steps = 2", "stepz = 2"),
    "setting-type.toml": changed(RECIPE, "steps = 2", 'steps = "two"'),
    "setting-nan.toml": changed(RECIPE, "eps = 0.1", "eps = nan"),
    "setting-norm.toml": changed(RECIPE, '"linf"', '"l7"'),
    "setting-huge.toml": changed(RECIPE, "eps = 0.1", "eps = 1e300"),
    "epochs-0.toml": changed(RECIPE, "epochs = 1", "epochs = 0"),
    "epochs-huge.toml": changed(RECIPE, "epochs = 1", f"epochs = {10**30}"),
    "batch-0.toml": changed(RECIPE, "batch_size = 64", "batch_size = 0"),
    "optimiser.toml": changed(RECIPE, '"adam"', '"eve"'),
    "rate-nan.toml": changed(RECIPE, "1e-3", "nan"),
    "rate-negative.toml": changed(RECIPE, "1e-3", "-1.0"),
    "start.toml": changed(RECIPE, 'data = "digits"', 'data = "digits"\nstart = "nobody"'),
    "start-nul.toml": changed(RECIPE, 'data = "digits"', 'data = "digits"\nstart = "a\\u0000.pt"'),
    "data-nul.toml": changed(RECIPE, '"digits"', '"a\\u0000/b.npz"'),
    "data-recipe.toml": changed(RECIPE, '"digits"', '"dijits"'),
    "normalise.toml": changed(
        RECIPE, "[architecture]", "[normalise]\nmean = [0.5]\nstd = [0.0]\n[architecture]"
    ),
    "sparse.toml": changed(RECIPE, "[train]", '[sparse]\nmethod = "sparsevlrr"\n[train]'),
    "sparsity.toml": changed(
        RECIPE, "[train]", '[sparse]\nmethod = "magnitude"\nsettings = { sparsity = 2.0 }\n[train]'
    ),
    "clients.toml": changed(RECIPE, "[train]", "[federated]\nclients = -1\n[train]"),
}
"""Each by its name; protocols for `robust-eval --protocol`, recipes for `robust-train`."""
