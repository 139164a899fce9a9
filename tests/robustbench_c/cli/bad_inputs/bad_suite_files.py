"""Bad suites."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from bad_toml_files import huge

MODEL = 'name = "mine"\n[[runs]]\nmodel = "breast-cancer-mlp"\n'
_TRAIN = 'name = "mine"\n[[runs]]\ncommand = "train"\n'
_TEXTS = {
    "no-runs": 'name = "mine"\n',
    "empty-runs": 'name = "mine"\nruns = []\n',
    "no-name": MODEL.replace('name = "mine"\n', ""),
    "name": MODEL.replace("mine", "../mine"),
    "name-escape": MODEL.replace("mine", "\\u001b[31mred"),
    "threads": "threads = 100000\n" + MODEL,
    "threads-text": 'threads = "all"\n' + MODEL,
    "extra": "color = 3\n" + MODEL,
    "extra-escape": '"\\u001b[31mred" = 3\n' + MODEL,
    "command": MODEL + 'command = "robust-eval"\n',
    "command-escape": MODEL + 'command = "\\u001b[31mred"\n',
    "option": MODEL + "epz = 0.1\n",
    "option-escape": MODEL + '"\\u001b[31mred" = 0.1\n',
    "option-dashes": MODEL + '"--eps" = 0.1\n',
    "out": MODEL + 'out = "/tmp"\n',
    "trust": MODEL + "trust-checkpoint = true\n",
    "suite": MODEL + 'suite = "zoo"\n',
    "eps-nan": MODEL + 'eps = "tiny"\n',
    "eps-list": MODEL + "eps = [[0.1]]\n",
    "eps-none": MODEL + "eps = []\n",
    "eps-table": MODEL + "eps = { value = 0.1 }\n",
    "eps-date": MODEL + "eps = 1979-05-27\n",
    "eps-twice": MODEL + "eps = 0.1\nx = [{ eps = 0.2 }]\n",
    "value-empty": MODEL + 'certify = ""\n',
    "switch": MODEL + 'radius = "yes"\n',
    "steps-huge": MODEL + f"steps = {10**15}\n",
    "attack": MODEL + 'attack = "pgdd"\n',
    "model-pattern": MODEL.replace("breast-cancer-mlp", "x*"),
    "model-name": MODEL.replace("breast-cancer-mlp", "breast-cancre-mlp"),
    "model-number": MODEL.replace('"breast-cancer-mlp"', "3"),
    "model-except": MODEL + 'except = "*"\n',
    "trained": MODEL.replace("breast-cancer-mlp", "trained:nobody"),
    "train-no-name": _TRAIN + 'recipe = "pgd"\n',
    "train-name": _TRAIN + 'recipe = "pgd"\nname = "../mine"\n',
    "train-twice": _TRAIN + 'recipe = ["pgd", "ibp"]\nname = "own"\n',
    "jobs": MODEL + f"seed = {list(range(200))}\nsamples = {list(range(1, 200))}\n",
    "jobs-same": MODEL + f"x = [{'{ eps = 0.1 },' * 9000}]\ny = [{'{ seed = 1 },' * 9000}]\n",
    "defaults": MODEL.replace("[[runs]]", "[defaults]\nsampels = 3\n[[runs]]"),
    "runs-text": 'name = "mine"\nruns = "all"\n',
    "nested": MODEL + "x = " + "[" * 60 + "{ eps = 0.1 }" + "]" * 60 + "\n",
}


def _text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content, encoding="utf-8")


SUITE_FILES: dict[str, Callable[[Path], object]] = {
    f"suite-{name}.toml": _text(content) for name, content in _TEXTS.items()
} | {
    "suite-pipe.toml": os.mkfifo,
    "suite-device.toml": lambda path: path.symlink_to("/dev/zero"),
    "suite-huge.toml": huge,
    "suite-good.toml": _text(MODEL),
}
