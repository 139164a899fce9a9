"""Bad properties, networks and lists of instances."""

from __future__ import annotations

from bad_cases import DATA, ESCAPE, MODEL, USAGE, Case, cases

_NETWORKS = [
    ("empty", "is empty", "@empty.onnx"),
    ("junk", "not an ONNX file", "@junk.onnx"),
    ("cut", "not an ONNX file", "@cut.onnx"),
    ("folder", "not a regular file", "@folder.onnx"),
    ("loop", "cannot be read", "@loop.onnx"),
    ("pipe", "not a regular file", "@pipe.onnx"),
    ("device", "not a regular file", "@zero.onnx"),
    ("bomb", "larger than", "@bomb.onnx.gz"),
    ("op", "Magic", "@op.onnx"),
    ("opset", "9999", "@opset.onnx"),
    ("nan", "nan.onnx: ", "@nan.onnx"),
    ("shape", "all axes but the first need a fixed size", "@shape.onnx"),
    ("shape-0", "all axes but the first need a fixed size", "@shape-0.onnx"),
    ("shape-huge", "is too large", "@shape-huge.onnx"),
    ("missing", "cannot", "missing.onnx"),
]
_PROPERTIES = [
    ("empty", "is empty", "@empty.vnnlib"),
    ("junk", "not a text file", "@junk.vnnlib"),
    ("folder", "not a regular file", "@folder.vnnlib"),
    ("loop", "cannot be read", "@loop.vnnlib"),
    ("pipe", "not a regular file", "@pipe.vnnlib"),
    ("device", "not a regular file", "@zero.vnnlib"),
    ("missing", "cannot", "missing.vnnlib"),
    ("cut", "never closed", "@cut.vnnlib"),
    ("deep", "nested deeper", "@deep.vnnlib"),
    ("escape", "this bracket is never closed", "@escape.vnnlib"),
    ("undeclared", "Y_7", "@undeclared.vnnlib"),
    ("twice", "X_0", "@twice.vnnlib"),
    ("gap", "Xs are declared, but X_", "@gap.vnnlib"),
    ("index-huge", "is neither an input X_i nor an output Y_j", "@index-huge.vnnlib"),
    ("index-digits", "is neither an input X_i nor an output Y_j", "@index-digits.vnnlib"),
    ("no-box", "X_0 has no upper bound", "@no-box.vnnlib"),
    ("empty-box", "box of X_0 is empty", "@empty-box.vnnlib"),
    ("no-output", "nothing is asserted", "@no-output.vnnlib"),
    ("nan", "nan", "@nan.vnnlib"),
    ("huge", "is no number or variable", "@huge.vnnlib"),
    ("digits", "is no number or variable", "@digits.vnnlib"),
    ("ratio", "a division by a variable, or by zero", "@ratio.vnnlib"),
    ("power", "a product of variables is not linear", "@power.vnnlib"),
    ("command", "is not supported", "@command.vnnlib"),
    ("branches", "too many branches", "@branches.vnnlib"),
    ("outputs", "the property speaks of", "@outputs.vnnlib"),
    ("bomb", "larger than", "@bomb.vnnlib.gz"),
]
_LISTS = [
    ("empty", "is empty", "@list-empty/instances.csv"),
    ("none", "no instances", "@list-none/instances.csv"),
    ("columns", "2 columns", "@list-columns/instances.csv"),
    ("timeout", "not a number of seconds", "@list-timeout/instances.csv"),
    ("timeout-nan", "not a number of seconds", "@list-timeout-nan/instances.csv"),
    ("timeout-0", "not a number of seconds", "@list-timeout-0/instances.csv"),
    ("missing", "there is no file", "@list-missing/instances.csv"),
    ("escape", "there is no file", "@list-escape/instances.csv"),
    ("nul", "not the name of a file", "@list-nul/instances.csv"),
    ("quote", "not a CSV file", "@list-quote/instances.csv"),
    ("long", "there is no file", "@list-long/instances.csv"),
    ("folder", "there is no file", "@list-folder/instances.csv"),
    ("is-a-folder", "cannot be read", "@folder.csv"),
    ("is-a-pipe", "not a regular file", "@pipe.csv"),
    ("is-junk", "not a CSV file", "@junk.csv"),
    ("absent", "cannot be read", "nowhere/instances.csv"),
]
_NET, _ASKED = ("--model", "@good.onnx"), ("--property", "@good.vnnlib")
_LIST = ("--instances", "@list-missing/instances.csv")
_OPTIONS = [
    ("property-alone", USAGE, "give a --model", *_ASKED),
    ("property-of-zoo", USAGE, "by its path", "--model", "fmnist-cnn-pgd", *_ASKED),
    ("property-of-escape", USAGE, "by its path", "--model", ESCAPE, *_ASKED),
    ("property-and-eps", USAGE, "--eps does not apply", *_NET, *_ASKED, "--eps", 1),
    ("property-timeout-0", USAGE, "--timeout 0", *_NET, *_ASKED, "--timeout", 0),
    ("property-timeout-nan", USAGE, "--timeout nan", *_NET, *_ASKED, "--timeout", "nan"),
    ("property-reference", USAGE, "belongs to --instances", *_NET, *_ASKED,
     "--reference", "@reference-header.csv"),
    ("no-property", USAGE, "--property is empty", *_NET, "--property", ""),
    ("property-out-is-a-file", 6, "cannot make the folder", *_NET, *_ASKED, "--out", "@text.txt"),
    ("instances-and-model", USAGE, "leave out the others", *_NET, *_LIST),
    ("no-instances", USAGE, "--instances is empty", "--instances", ""),
    ("timeout-alone", USAGE, "give a --model", "--timeout", 3),
    ("reference-alone", USAGE, "give a --model", "--reference", "@reference-header.csv"),
    ("reference-header", DATA, "has no column 'onnx'", "--instances", "@list-good/instances.csv",
     "--reference", "@reference-header.csv"),
    ("reference-verdict", DATA, "is no verdict", "--instances", "@list-good/instances.csv",
     "--reference", "@reference-verdict.csv"),
    ("reference-missing", DATA, "cannot be read", "--instances", "@list-good/instances.csv",
     "--reference", "missing.csv"),
]  # fmt: skip

PROPERTY_CASES: list[Case] = [
    *cases(
        "robust-eval",
        _ASKED,
        [(f"network-{n}", MODEL, words, "--model", path) for n, words, path in _NETWORKS],
    ),
    *cases(
        "robust-eval",
        _NET,
        [(f"property-{n}", DATA, words, "--property", path) for n, words, path in _PROPERTIES],
    ),
    *cases(
        "robust-eval",
        (),
        [(f"instances-{n}", DATA, words, "--instances", path) for n, words, path in _LISTS],
    ),
    *cases("robust-eval", (), _OPTIONS),
]
