"""Errors of this package, each one line that says what is wrong and what to do."""

from __future__ import annotations


class AttackError(ValueError):
    """A threat model or an attack's settings are not legal."""

    exit_code = 5


class ClassifierError(ValueError):
    """A classifier cannot be attacked: wrong output shape, not finite, random, in training mode."""

    exit_code = 3


class CompileError(ValueError):
    """Compiled gradients were asked for, and `torch.compile` has none here."""

    exit_code = 2


class TooLittleMemoryError(ValueError):
    """Not even one sample fits into the memory that there is, or that may be used."""

    exit_code = 2
