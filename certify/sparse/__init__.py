"""Sparse networks: masks and their schedules, SparseVLR and what it is compared with, export."""
