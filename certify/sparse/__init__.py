"""Sparse networks: masks and their schedules, SparseVLR and what it is compared with, export."""

from certify.sparse.base import Dense, Random, Settings, Sparsifier, Update
from certify.sparse.budget import Allocation, Budget, allocate
from certify.sparse.dynamic import Dynamic
from certify.sparse.layers import Structure, prunable
from certify.sparse.magnitude import Magnitude
from certify.sparse.masks import Layout, Masks
from certify.sparse.schedule import Position
from certify.sparse.static import Static

METHODS: dict[str, type[Sparsifier]] = {
    "static": Static,
    "dynamic": Dynamic,
    "magnitude": Magnitude,
}
"""Sparse training methods by the name that recipes use."""

__all__ = [
    "METHODS",
    "Allocation",
    "Budget",
    "Dense",
    "Dynamic",
    "Layout",
    "Magnitude",
    "Masks",
    "Position",
    "Random",
    "Settings",
    "Sparsifier",
    "Static",
    "Structure",
    "Update",
    "allocate",
    "prunable",
]
