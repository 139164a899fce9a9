"""Training objectives that a proof is part of: see `attacks.objectives` for their form."""

from certify.training.crown_ibp import crown_ibp
from certify.training.explanation import explanation_box
from certify.training.expressive import cc_ibp, mtl_ibp
from certify.training.ibp import ibp
from certify.training.initialise import ibp_initialisation
from certify.training.network import verified
from certify.training.sabr import sabr
from certify.training.stable import nrs

__all__ = [
    "cc_ibp",
    "crown_ibp",
    "explanation_box",
    "ibp",
    "ibp_initialisation",
    "mtl_ibp",
    "nrs",
    "sabr",
    "verified",
]
