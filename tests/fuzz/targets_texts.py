"""Parsers of texts: VNN-LIB, lists of instances, suites, recipes, protocols, data of one's own."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from mutations import Drawn, of_bytes, of_member, of_words

from robustbench_c.data.csv_file import load_csv
from robustbench_c.data.npz import load_npz
from robustbench_c.evaluation.protocols import _FOLDER as PROTOCOLS
from robustbench_c.evaluation.protocols import load_protocol
from robustbench_c.foreign import load_vnnlib
from robustbench_c.foreign.instances import read_instances, read_reference
from robustbench_c.foreign.sexpr import parse
from robustbench_c.suites.suite import load_suite
from robustbench_c.training.recipe import known_recipes, load_recipe

Target = tuple[Drawn, Callable[[bytes], object]]
_PROPERTY = """; a comment
(declare-const X_0 Real) (declare-const X_1 Real)
(declare-const Y_0 Real) (declare-const Y_1 Real)
(assert (>= X_0 -1)) (assert (<= X_0 1)) (assert (>= X_1 0.5e-1)) (assert (<= X_1 1))
(assert (or (and (<= Y_0 Y_1) (>= X_0 0)) (and (<= (+ (* 2 Y_0) -0.5) (- Y_1 1)))))
"""
_MORE = "(assert (<= X_0 1))(assert (or (and (<= Y_0 1)(>= Y_1 2)) (and (>= (* -1.0 Y_0) Y_1))))"
_OF_LISP = ("(", ")", "((", "or", "and", "<=", ">=", "<", "+", "-", "*", "/", "X_0", "Y_0", "X_99",
            "Y_5", "X_", "1e999", "1e-999", "-", ".", "1/3", "0", "nan", "|a b|", '"s"', ";",
            "declare-const", "declare-fun", "define-fun", "assert", "Real", "not", "ite", "let",
            "9" * 400, "1e400000000", "\x00", "é", "(" * 120, "(or" * 20)  # fmt: skip
_OF_TOML = ("[", "]", "[[", "]]", "{", "}", "=", '"', "'", '"""', "\n", "#", ",", ".", "-1", "0",
            "nan", "inf", "1e999", "9" * 40, "9" * 5000, "true", '""', "[]", "{}", '"\\u001b"',
            '"\\u0000"', "1979-05-27", "[runs]", "[[runs]]", "model", "eps", "norm", "name", "out",
            "trust_checkpoint", "workers", '"trained:x"', '"../x"', '["a", "b"]', "[" * 300,
            '["*"]', "command", '"train"', "except", "\x00", "é")  # fmt: skip
_OF_CSV = (",", "\n", '"', "\r", "\0", "nan", "1e999", "-", "label", "", ";", "é", "9" * 400, "net")
_SUITE = """
name = "mine"
[defaults]
samples = 200
[[runs]]
model = ["fmnist-cnn-*", "models/own.safetensors"]
except = ["fmnist-cnn-standard"]
threats = [{ norm = "linf", eps = 0.1 }, { norm = "l2", eps = 1.0 }]
attack = ["pgd", "auto"]
certify = "cascade"
[[runs]]
command = "train"
recipe = "pgd"
name = "own"
[[runs]]
model = "trained:own"
eps = 0.05
"""


def targets(folder: Path) -> dict[str, Target]:
    """By its name, each parser's inputs and the parser."""
    for name in ("net.onnx", "p.vnnlib"):
        (folder / name).touch()
    lists = ["net.onnx,p.vnnlib,30\n\nnet.onnx,p.vnnlib,1.5\n"]
    known = ["onnx,vnnlib,reference\nnet.onnx,p.vnnlib,sat\n"]
    table = ["a,b,label\n0.5,1,0\n0.25,-3,1\n1e-3,2,red\n", "a,y\n1,0\n2,1\n"]
    recipes = [p.read_text() for p in itertools.islice(known_recipes().values(), 0, None, 5)]
    protocols = [path.read_text() for path in sorted(PROTOCOLS.glob("*.toml"))]
    properties = of_words([_PROPERTY, _PROPERTY + _MORE], _OF_LISP)
    return {
        "s-expressions": (
            properties,
            lambda data: parse(data.decode("utf-8", "surrogateescape")),
        ),
        "vnnlib": (properties, _in_file(folder / "own.vnnlib", load_vnnlib)),
        "instances": (of_words(lists, _OF_CSV), _in_file(folder / "i.csv", read_instances)),
        "reference": (of_words(known, _OF_CSV), _in_file(folder / "r.csv", read_reference)),
        "suite": (of_words([_SUITE], _OF_TOML), _by_name(folder / "s.toml", load_suite)),
        "recipe": (of_words(recipes, _OF_TOML), _by_name(folder / "r.toml", load_recipe)),
        "protocol": (of_words(protocols, _OF_TOML), _by_name(folder / "p.toml", load_protocol)),
        "csv": (of_words(table, _OF_CSV), _in_file(folder / "own.csv", load_csv)),
        "npz": (
            st.one_of(of_bytes([_arrays(), _arrays(False)]), of_member(_arrays(), "x.npy")),
            _in_file(folder / "own.npz", load_npz),
        ),
    }


def _in_file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def take(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return take


def _by_name(path: Path, read: Callable[[str], object]) -> Callable[[bytes], object]:
    return _in_file(path, lambda written: read(str(written)))


def _arrays(stored: bool = True) -> bytes:
    out = io.BytesIO()
    arrays = {"x": np.full((3, 2), 0.5, np.float32), "y": np.array([0, 1, 0]),
              "lower": np.float32(0), "classes": np.array(["a", "b"])}  # fmt: skip
    (np.savez if stored else np.savez_compressed)(out, **arrays)
    return out.getvalue()
