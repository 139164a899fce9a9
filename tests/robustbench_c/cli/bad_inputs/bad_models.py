"""Bad models, for every command that takes one."""

from __future__ import annotations

from bad_cases import DATA, ESCAPE, MODEL, USAGE, Case, cases

_ON = ("--data", "@good.npz", "--eps", 0.1, "--device", "cpu", "--attack", "pgd", "--steps", 1)
_MLP = ("--arch", "mlp", "--arch-args", '{"widths": [3]}')
TRUST = "--trust-checkpoint"

_NAMES = [
    ("name", MODEL, "did you mean 'fmnist-cnn-standard'?", "fmnist-cnn-standart"),
    ("empty", USAGE, "--model is empty", ""),
    ("blank", USAGE, "--model is empty", "  "),
    ("escape", MODEL, "no model named", ESCAPE),
    ("long", MODEL, "no model named", "x" * 300),
    ("long-file", MODEL, "no such file", "x" * 300 + ".pt"),
    ("not-utf-8", MODEL, "no model named", "caf\udce9"),
    ("missing", MODEL, "no such file", "nowhere/model.pt"),
    ("dot", MODEL, "is a folder", "."),
    ("suffix", MODEL, "is no model file", "@model.h5"),
    ("no-trust", MODEL, "--trust-checkpoint", "@code.py:means"),
    ("onnx-junk", MODEL, "not an ONNX file", "@junk.onnx"),
    ("onnx-cut", MODEL, "not an ONNX file", "@cut.onnx"),
    ("onnx-pipe", MODEL, "not a regular file", "@pipe.onnx"),
    ("onnx-gz-damaged", MODEL, "damaged gzip", "@damaged.onnx.gz"),
    ("pt2-untrusted", MODEL, "--trust-checkpoint", "@junk.pt2"),
]
_WEIGHTS = [
    ("pt-empty", MODEL, "is empty", "@empty.pt"),
    ("pt-junk", MODEL, "not a torch checkpoint", "@junk.pt"),
    ("pt-zeros", MODEL, "holds zeros", "@zeros.pt"),
    ("pt-page", MODEL, "is a web page", "@page.pt"),
    ("pt-pointer", MODEL, "Git LFS", "@pointer.pt"),
    ("pt-huge", MODEL, "", "@huge.pt"),
    ("pt-loop", MODEL, "", "@loop.pt"),
    ("pt-pipe", MODEL, "not a regular file", "@pipe.pt"),
    ("pt-device", MODEL, "not a regular file", "@zero.pt"),
    ("pt-folder", MODEL, "is a folder", "@folder.pt"),
    ("pt-cut", MODEL, "truncated or damaged", "@cut.pt"),
    ("pt-code", MODEL, "asks for code", "@code.pt"),
    ("pt-pickle", MODEL, "not a torch checkpoint", "@pickle.pt"),
    ("pt-meta", MODEL, "without values", "@meta.pt"),
    ("pt-numbers", MODEL, "holds no state dict", "@numbers.pt"),
    ("pt-list", MODEL, "holds no state dict", "@list.pt"),
    ("pt-none", MODEL, "holds no state dict", "@none.pt"),
    ("pt-nested", MODEL, "holds no state dict", "@nested.pt"),
    ("pt-nan", MODEL, "NaN or Inf", "@nan.pt"),
    ("pt-inf", MODEL, "NaN or Inf", "@inf.pt"),
    ("pt-missing", MODEL, "missing: ", "@missing.pt"),
    ("pt-more", MODEL, "unexpected: ", "@more.pt"),
    ("pt-shapes", MODEL, "of the wrong shape", "@shapes.pt"),
    ("pt-integers", MODEL, "int64", "@integers.pt"),
    ("pt-complex", MODEL, "complex64", "@complex.pt"),
    ("pt-sparse", MODEL, "", "@sparse.pt"),
    ("pt-numbered", MODEL, "missing: ", "@numbered.pt"),
    ("st-empty", MODEL, "is empty", "@empty.safetensors"),
    ("st-junk", MODEL, "not a safetensors file", "@junk.safetensors"),
    ("st-cut", MODEL, "not a safetensors file", "@cut.safetensors"),
    ("st-loop", MODEL, "", "@loop.safetensors"),
    ("st-pipe", MODEL, "not a regular file", "@pipe.safetensors"),
    ("st-folder", MODEL, "is a folder", "@folder.safetensors"),
    ("st-header-huge", MODEL, "not a safetensors file", "@header-huge.safetensors"),
    ("st-header-long", MODEL, "not a safetensors file", "@header-long.safetensors"),
    ("st-header-list", MODEL, "not a safetensors file", "@header-list.safetensors"),
    ("st-header-deep", MODEL, "not a safetensors file", "@header-deep.safetensors"),
    ("st-header-empty", MODEL, "missing: ", "@header-empty.safetensors"),
    ("st-header-dtype", MODEL, "not a safetensors file", "@header-dtype.safetensors"),
    ("st-header-offsets", MODEL, "not a safetensors file", "@header-offsets.safetensors"),
    ("st-header-shape", MODEL, "not a safetensors file", "@header-shape.safetensors"),
]
_CARDS = [
    ("card-hash", MODEL, "is not the file its card speaks of", "@card-hash.safetensors"),
    ("card-arch", MODEL, "transformer", "@card-arch.safetensors"),
    ("card-widths", MODEL, "widths", "@card-widths.safetensors"),
    ("card-argument", MODEL, "colour", "@card-argument.safetensors"),
    ("card-wide", MODEL, "does not fit", "@card-wide.safetensors"),
    ("card-shape", DATA, "takes samples of shape (7,)", "@card-shape.safetensors"),
    ("card-shape-0", MODEL, "input_shape", "@card-shape-0.safetensors"),
    ("card-shape-huge", MODEL, "input_shape", "@card-shape-huge.safetensors"),
    ("card-classes", MODEL, "does not fit", "@card-classes.safetensors"),
    ("card-mean", MODEL, "mean has 1 values", "@card-mean.safetensors"),
    ("card-std", MODEL, "must be above 0", "@card-std.safetensors"),
    ("card-name", MODEL, "name", "@card-name.safetensors"),
    ("card-extra", MODEL, "is not a model card", "@card-extra.safetensors"),
    ("card-version", MODEL, "schema_version", "@card-version.safetensors"),
    ("card-data", MODEL, "data", "@card-data.safetensors"),
    ("card-junk", MODEL, "is not a model card", "@card-junk.safetensors"),
    ("card-empty", MODEL, "is not a model card", "@card-empty.safetensors"),
    ("card-huge", MODEL, "larger than 1 MiB", "@card-huge.safetensors"),
    ("card-deep", MODEL, "is not a model card", "@card-deep.safetensors"),
    ("card-list", MODEL, "is not a model card", "@card-list.safetensors"),
    ("card-folder", MODEL, "cannot read the model card", "@card-folder.safetensors"),
    ("card-pipe", MODEL, "not a regular file", "@card-pipe.safetensors"),
    ("card-loop", MODEL, "", "@card-loop.safetensors"),
]
_TRUSTED = [
    ("code-nan", MODEL, "NaN or Inf", "@code.py:Nan"),
    ("code-wide", MODEL, "samples of shape (4,)", "@code.py:Wide"),
    ("code-loud", MODEL, "cannot evaluate", "@code.py:Loud"),
    ("code-fails", MODEL, "fails", "@code.py:fails"),
    ("code-leaves", MODEL, "leaves", "@code.py:leaves"),
    ("code-nothing", MODEL, "nothing", "@code.py:nothing"),
    ("code-arguments", MODEL, "takes_arguments", "@code.py:takes_arguments"),
    ("code-absent", MODEL, "absent", "@code.py:absent"),
    ("code-no-callable", MODEL, "CODE", "@code.py:CODE"),
    ("code-broken", MODEL, "broken.py", "@broken.py:make"),
    ("code-exits", MODEL, "exits.py", "@exits.py:make"),
    ("code-imports", MODEL, "a_package_that_is_not_there", "@imports.py:make"),
    ("code-missing", MODEL, "", "missing.py:make"),
    ("code-folder", MODEL, "", "@folder:make"),
    ("code-package", MODEL, "", "a_package.that_is.not_there:make"),
    ("code-pt2-junk", MODEL, "", "@junk.pt2"),
    ("code-pt2-empty", MODEL, "is empty", "@empty.pt2"),
]


def _named(table):
    return [(name, code, words, "--model", model) for name, code, words, model in table]


_SOUND = ("--model", "@good.pt")
_OPTIONS = [
    ("no-arch", MODEL, "name its architecture with --arch", *_SOUND),
    ("arch", MODEL, "did you mean 'mlp'?", *_SOUND, "--arch", "mpl"),
    ("arch-empty", USAGE, "--arch is empty", *_SOUND, "--arch", ""),
    ("arch-escape", MODEL, "", *_SOUND, "--arch", ESCAPE),
    ("widths-text", MODEL, "widths", *_SOUND, "--arch", "mlp", "--arch-args", '{"widths": "3"}'),
    ("widths-negative", MODEL, "widths", *_SOUND, "--arch", "mlp", "--arch-args",
     '{"widths": [-3]}'),
    ("widths-huge", MODEL, "", *_SOUND, "--arch", "mlp", "--arch-args",
     f'{{"widths": [{10**30}]}}'),
    ("widths-nan", MODEL, "widths", *_SOUND, "--arch", "mlp", "--arch-args", '{"widths": [NaN]}'),
    ("widths-many", MODEL, "widths", *_SOUND, "--arch", "mlp", "--arch-args",
     '{"widths": [' + "3," * 50_000 + "3]}"),
    ("args-escape", MODEL, "", *_SOUND, "--arch", "mlp", "--arch-args", '{"\\u001b[31m": 1}'),
    ("mean-alone", MODEL, "go together", *_SOUND, *_MLP, "--mean", 0.5),
    ("mean-long", MODEL, "mean has 2 values", *_SOUND, *_MLP, "--mean", "0,0", "--std", "1,1"),
    ("mean-nan", MODEL, "not finite", *_SOUND, *_MLP, "--mean", "0,0,nan,0", "--std", "1,1,1,1"),
    ("std-0", MODEL, "must be above 0", *_SOUND, *_MLP, "--mean", "0,0,0,0", "--std", "1,1,0,1"),
    ("std-empty", USAGE, "not a list of numbers", *_SOUND, *_MLP, "--mean", "1,", "--std", "1,"),
    ("onnx-arch", MODEL, "takes samples of shape", "--model", "@good.onnx", "--arch", "mlp"),
    ("onnx-shape", MODEL, "takes samples of shape", "--model", "@good.onnx"),
    ("code-arch", MODEL, "brings its own architecture", "--model", "@code.py:means", TRUST,
     "--arch", "mlp"),
]  # fmt: skip

MODEL_CASES: list[Case] = [
    *cases("robust-eval", _ON, _named(_NAMES)),
    *cases("robust-eval", (*_ON, *_MLP), _named(_WEIGHTS)),
    *cases("robust-eval", _ON, _named(_CARDS)),
    *cases("robust-eval", (*_ON, TRUST), _named(_TRUSTED)),
    *cases("robust-eval", _ON, _OPTIONS),
]
