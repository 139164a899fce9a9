"""The signs that diagnostics know: what each is about, and its limit, which no record sets.

The same as `attacks.diagnostics.SIGNS`, which this package does not import; a test compares them.
"""

from __future__ import annotations

from typing import Final, Literal

About = Literal["model", "sample"]

SIGNS: Final[dict[str, tuple[About, float]]] = {
    "random-output": ("model", 0.0),
    "softmax-output": ("model", 0.5),
    "saturated-logits": ("sample", 0.5),
    "zero-gradient": ("sample", 0.1),
    "exploding-gradient": ("sample", 0.0),
    "quantised-input": ("sample", 0.5),
    "loss-stands-still": ("sample", 0.5),
    "noise-beats-gradient": ("sample", 0.1),
    "not-monotone": ("sample", 0.05),
    "holds-at-any-eps": ("sample", 0.05),
    "black-box-beats-white-box": ("sample", 0.05),
    "transfer-beats-white-box": ("sample", 0.05),
}
"""By name; those of the first probes (schema version 1) have the same limits."""
