"""Bad settings of `robust-eval --explain`."""

from __future__ import annotations

from bad_cases import ATTACK, DATA, ESCAPE, USAGE, Case, cases

_COMMON = (
    *("--model", "breast-cancer-mlp", "--eps", 0.01, "--samples", 4, "--device", "cpu"),
    *("--explain", "gradient"),
)

EXPLANATION_CASES: list[Case] = cases(
    "robust-eval",
    _COMMON,
    [
        ("explain", USAGE, "did you mean", "--explain", "gradeint"),
        ("explain-escape", USAGE, "no explanation", "--explain", ESCAPE),
        ("explain-empty", USAGE, "--explain is empty", "--explain", ""),
        ("explain-of", USAGE, "--explain-of", "--explain-of", "softmax"),
        ("explain-steps-of-gradient", USAGE, "belongs to", "--explain-steps", 5),
        ("explain-steps-0", USAGE, "1 to 1000", "--explain", "smoothgrad", "--explain-steps", 0),
        ("explain-sigma-nan", ATTACK, "", "--explain", "smoothgrad", "--explain-sigma", "nan"),
        ("explain-sigma-negative", ATTACK, "", "--explain", "smoothgrad", "--explain-sigma", -1),
        ("explain-method", USAGE, "did you mean", "--explain-method", "crown-intervall"),
        ("explain-method-escape", USAGE, "no certificate", "--explain-method", ESCAPE),
        ("explain-method-blank", USAGE, "no certificate", "--explain-method", " , "),
        ("gamma-negative", ATTACK, "", "--gamma", -0.5),
        ("gamma-nan", ATTACK, "", "--gamma", "nan"),
        ("gamma-absolute", USAGE, "give --gamma", "--gamma-absolute"),
        ("measure", USAGE, "did you mean", "--measure", "cosinus"),
        ("measure-without-delta", USAGE, "give --delta", "--measure", "l2"),
        ("delta-nan", ATTACK, "", "--measure", "l2", "--delta", "nan"),
        ("delta-negative", ATTACK, "", "--measure", "l2", "--delta", -1),
        ("min-cosine", USAGE, "is not from -1 to 1", "--min-cosine", 3),
        ("min-cosine-nan", USAGE, "is not from -1 to 1", "--min-cosine", "nan"),
        ("min-cosine-and-delta", USAGE, "leave out", "--min-cosine", 0.9, "--delta", 0.1),
        ("relative", USAGE, "--relative belongs to", "--relative"),
        ("signed", USAGE, "--signed belongs to", "--signed"),
        ("top-k-0", ATTACK, "", "--measure", "top-k", "--delta", 1, "--top-k", 0),
        ("top-k-huge", ATTACK, "", "--measure", "top-k", "--delta", 1, "--top-k", 10**30),
        ("features", USAGE, "--features belongs to", "--features", "a"),
        ("features-none", USAGE, "give --features", "--measure", "into-top-k"),
        ("features-unknown", USAGE, "", "--measure", "into-top-k", "--features", ESCAPE),
        ("immutable", USAGE, "did you mean 'mean radius'?", "--immutable", "mean radiuss"),
        ("monotone", USAGE, "", "--monotone", "mean radiuss"),
        ("monotone-empty", USAGE, "--monotone is empty", "--monotone", ""),
        ("eps-curve", USAGE, "not a list of numbers", "--explain-eps-curve", "a,b"),
        ("eps-curve-inf", USAGE, "finite and above 0", "--explain-eps-curve", "0.1,inf"),
        ("lipschitz-budget", USAGE, "add it", "--explain-lipschitz-budget", 3),
        ("lipschitz-0", USAGE, "", "--explain-lipschitz", "--explain-lipschitz-budget", 0),
        ("aim", USAGE, "no aim", "--explain-aim", "centre"),
        ("surrogate", USAGE, "neither a number nor none", "--explain-surrogate", "soft"),
        ("surrogate-nan", ATTACK, "", "--explain-surrogate", "nan"),
        ("surrogate-0", ATTACK, "", "--explain-surrogate", 0),
        (
            "aim-of-no-attack",
            USAGE,
            "belongs to the attack",
            "--attack",
            "none",
            "--explain-aim",
            "measure",
        ),
        ("explain-certify", USAGE, "does not go with --explain", "--certify", "ibp"),
        ("explain-data", DATA, "no dataset", "--data", "breast-cancre"),
    ],
)
