"""What can go wrong in a proof, each in one line."""

from __future__ import annotations

from attacks.errors import ClassifierError


class CertifyError(Exception):
    """A bound could not be computed: a bug of ours or an illegal argument, never a verdict."""

    exit_code = 5


class UnsupportedError(ClassifierError):
    """The model holds what no rule is there for; the message names the operation and module."""
