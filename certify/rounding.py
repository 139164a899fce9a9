"""A-priori error bounds of floating-point arithmetic (Higham, Accuracy and Stability, chapter 3).

Assumed of the machine, and all that is: IEEE 754 arithmetic in the working precision with rounding
to nearest; sums and dot products in any order, with or without fused multiply-add, but as sums of
products (no Winograd or FFT convolution, no TF32, no half precision inside); elementary functions
within the stated number of units in the last place. Overflow gives Inf or NaN, which is never
certified; underflow is covered by `tiny`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

FUNCTION_ULPS = 4
"""Most ulps by which exp, log, tanh, erf, pow and the like may be wrong (torch: SLEEF, 1 to 4)."""


@dataclass(frozen=True)
class Rounding:
    """Rounding in one precision; `off` (unit 0) is for training, where bounds prove nothing.

    Attributes:
        unit: Unit roundoff u, 2^-24 in float32.
        tiny: An absolute error that covers underflow, far below any number of interest.
    """

    unit: float
    tiny: float

    @classmethod
    def of(cls, dtype: torch.dtype) -> Rounding:
        """The rounding of a floating-point type."""
        info = torch.finfo(dtype)
        return cls(info.eps / 2, info.tiny * 2**20)

    @property
    def function(self) -> float:
        """Relative error of an elementary function's value, here and again in the model."""
        return 2 * (2 * FUNCTION_ULPS + 1) * self.unit

    def gamma(self, terms: int) -> float:
        """N u / (1 - n u): the relative error of a sum of n products in any order."""
        product = terms * self.unit
        if product > 0.04:
            return float("inf")
        return product / (1 - product)


OFF = Rounding(0.0, 0.0)
