"""Bad settings of `robust-smooth` and `robust-corrupt`."""

from __future__ import annotations

from bad_cases import ATTACK, DATA, ESCAPE, MODEL, RECORD, USAGE, Case, cases

_MODEL = ("--model", "fmnist-cnn-standard", "--samples", 4, "--device", "cpu")
_MODELS = [
    ("no-model", USAGE, "give a --model"),
    ("misspelt-option", USAGE, "No such option", "--modle", "x"),
    ("model", MODEL, "did you mean", "--model", "fmnist-cnn-standart"),
    ("model-empty", USAGE, "--model is empty", "--model", ""),
    ("model-escape", MODEL, "no model named", "--model", ESCAPE, "--data", "digits"),
    ("model-code", MODEL, "asks for code", "--model", "@code.pt", "--data", "@good.npz"),
    ("model-pipe", MODEL, "not a regular file", "--model", "@pipe.pt", "--data", "@good.npz"),
    ("model-untrusted", MODEL, "--trust-checkpoint", "--model", "@code.py:means",
     "--data", "@good.npz"),
    ("no-data", USAGE, "give --data", "--model", "@good.pt"),
    ("data", DATA, "did you mean", *_MODEL, "--data", "digit"),
    ("data-nan", DATA, "not a finite number", *_MODEL, "--data", "@nan.npz"),
    ("data-shape", DATA, "takes samples of shape", *_MODEL, "--data", "digits"),
    ("samples-0", DATA, "0 samples asked for", *_MODEL, "--samples", 0),
    ("seed-negative", USAGE, "--seed", *_MODEL, "--seed", -1),
    ("batch-size-0", USAGE, "--batch-size", *_MODEL, "--batch-size", 0),
    ("batch-size-huge", USAGE, "--batch-size", *_MODEL, "--batch-size", 10**30),
    ("device", USAGE, "use cpu, cuda", *_MODEL, "--device", "gpu"),
    ("out-empty", USAGE, "--out", *_MODEL, "--out", ""),
    ("out-is-a-file", RECORD, "cannot make the folder", *_MODEL, "--out", "@text.txt"),
    ("out-in-proc", RECORD, "cannot make the folder", *_MODEL, "--out", "/proc/runs"),
]  # fmt: skip
_SMOOTH = [
    ("no-sigma", USAGE, "give --smooth", *_MODEL),
    ("sigma-0", ATTACK, "sigma", *_MODEL, "--smooth", 0),
    ("sigma-nan", ATTACK, "sigma", *_MODEL, "--smooth", "nan"),
    ("sigma-inf", ATTACK, "sigma", *_MODEL, "--smooth", "inf"),
    ("sigma-word", USAGE, "--smooth", *_MODEL, "--smooth", ESCAPE),
    ("n0-0", ATTACK, "n0", *_MODEL, "--smooth", 0.25, "--smooth-n0", 0),
    ("n0-huge", ATTACK, "n0", *_MODEL, "--smooth", 0.25, "--smooth-n0", 10**30),
    ("n-negative", ATTACK, "n", *_MODEL, "--smooth", 0.25, "--smooth-n", -5),
    ("n-huge", ATTACK, "n", *_MODEL, "--smooth", 0.25, "--smooth-n", 10**30),
    ("alpha-0", ATTACK, "alpha", *_MODEL, "--smooth", 0.25, "--smooth-alpha", 0),
    ("alpha-nan", ATTACK, "alpha", *_MODEL, "--smooth", 0.25, "--smooth-alpha", "nan"),
    ("alpha-1", ATTACK, "alpha", *_MODEL, "--smooth", 0.25, "--smooth-alpha", 1),
    ("eps-negative", ATTACK, "eps", *_MODEL, "--smooth", 0.25, "--eps", -1),
    ("eps-nan", ATTACK, "eps", *_MODEL, "--smooth", 0.25, "--eps", "nan"),
]
_CORRUPT = [
    ("kind", USAGE, "did you mean", *_MODEL, "--kinds", "fogg"),
    ("kind-empty", USAGE, "--kinds is empty", *_MODEL, "--kinds", ""),
    ("kind-escape", USAGE, "--kinds", *_MODEL, "--kinds", ESCAPE),
    ("kind-of-grey", ATTACK, "needs three channels", *_MODEL, "--kinds", "saturate"),
    ("severity-0", USAGE, "from 1 to 5", *_MODEL, "--severities", "0"),
    ("severity-word", USAGE, "from 1 to 5", *_MODEL, "--severities", "mild"),
    ("severity-empty", USAGE, "--severities is empty", *_MODEL, "--severities", ""),
    ("severity-digits", USAGE, "from 1 to 5", *_MODEL, "--severities", "9" * 5000),
    ("severity-escape", USAGE, "from 1 to 5", *_MODEL, "--severities", ESCAPE),
    ("families-without-search", USAGE, "add it", *_MODEL, "--families", "blur"),
    ("kinds-of-search", USAGE, "leave it", *_MODEL, "--search", "--kinds", "fog"),
    ("family", USAGE, "did you mean", *_MODEL, "--search", "--families", "rotat"),
    ("levels-0", USAGE, "--levels", *_MODEL, "--search", "--levels", 0),
    ("draws-negative", USAGE, "--draws", *_MODEL, "--search", "--draws", -1),
    (
        "table",
        ATTACK,
        "are of images",
        "--model",
        "breast-cancer-mlp",
        "--samples",
        4,
        "--kinds",
        "fog",
    ),
]

OTHER_CASES: list[Case] = [
    *cases("robust-smooth", ("--smooth", 0.25), _MODELS),
    *cases("robust-smooth", (), _SMOOTH),
    *cases("robust-corrupt", (), _MODELS),
    *cases("robust-corrupt", (), _CORRUPT),
]
