"""Sparse networks: masks and their schedules, SparseVLR and what it is compared with, export."""

from certify.sparse.acdc import Alternating
from certify.sparse.base import Dense, Random, Settings, Sparsifier, Update
from certify.sparse.budget import Allocation, Budget, allocate
from certify.sparse.cram import Cram
from certify.sparse.dynamic import Dynamic
from certify.sparse.hydra import Hydra
from certify.sparse.layers import Structure, prunable
from certify.sparse.magnitude import Magnitude
from certify.sparse.masks import Layout, Masks
from certify.sparse.rewind import Rewind
from certify.sparse.schedule import Position
from certify.sparse.static import Static
from certify.sparse.tscnc import Tscnc

METHODS: dict[str, type[Sparsifier]] = {
    "static": Static,
    "dynamic": Dynamic,
    "magnitude": Magnitude,
    "ac-dc": Alternating,
    "rewind": Rewind,
    "hydra": Hydra,
    "cram": Cram,
    "tscnc": Tscnc,
}
"""Sparse training methods by the name that recipes use."""

__all__ = [
    "METHODS",
    "Allocation",
    "Alternating",
    "Budget",
    "Cram",
    "Dense",
    "Dynamic",
    "Hydra",
    "Layout",
    "Magnitude",
    "Masks",
    "Position",
    "Random",
    "Rewind",
    "Settings",
    "Sparsifier",
    "Static",
    "Structure",
    "Tscnc",
    "Update",
    "allocate",
    "prunable",
]
