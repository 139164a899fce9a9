"""Protocols by name: settings that are fixed and versioned, so that records can be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from attacks.losses import LossName
from attacks.threat import Norm
from leaderboards.manifest import Slug, explain
from robustbench_c.errors import UsageError, did_you_mean
from robustbench_c.evaluation.certifying import CertifyConfig
from robustbench_c.files import read_toml

_FOLDER = Path(__file__).parent


class NamedProtocol(BaseModel):
    """A protocol as its file states it; `robust-eval --protocol` takes every setting from it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: Slug
    """Name and version: part of the record, and of the hash that comparable records share."""
    description: str
    """What it is, in one line."""
    data: str
    """Set of data, by name or path."""
    norm: Norm
    """Norm of the perturbation."""
    eps: float = Field(ge=0, allow_inf_nan=False)
    """Radius, in the data's units."""
    steps: int = Field(le=1_000_000)
    """Gradient steps of a restart."""
    restarts: int = Field(le=1_000_000)
    """Restarts."""
    step_size: float = Field(gt=0, allow_inf_nan=False)
    """Length of a step, in units of eps."""
    loss: LossName
    """Loss that is raised."""
    goal: Literal["untargeted", "multi-targeted"]
    """What an example has to reach."""
    certify: str | None = None
    """Certificate on what the attack leaves, or `cascade`; without one nothing is proved."""
    certify_iterations: int = Field(default=20, ge=1, le=1_000_000)
    """Slope steps of alpha-crown."""
    certify_subproblems: int = Field(default=2000, ge=1, le=10**9)
    """Subproblems of complete, for each sample."""
    radius: bool = False
    """Whether certified radii are searched as well."""


def known_protocols() -> list[str]:
    """Names of the protocols in the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_protocol(name_or_path: str) -> NamedProtocol:
    """Read a protocol of the package, or a TOML file.

    Raises:
        UsageError: No such protocol (with a hint), or a file that is none.
    """
    path = Path(name_or_path)
    if name_or_path in known_protocols():
        path = _FOLDER / f"{name_or_path}.toml"
    elif path.suffix != ".toml":
        hint = did_you_mean(name_or_path, known_protocols())
        raise UsageError(f"no protocol '{name_or_path}'; {hint}")
    try:
        named = NamedProtocol.model_validate(read_toml(path, "protocol"))
    except ValidationError as error:
        raise UsageError(f"{path} is not a protocol: {explain(error)}") from error
    if named.certify is not None:
        CertifyConfig(named.certify)  # says what it may be
    return named
