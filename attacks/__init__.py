"""What an adversary can do: threat models, attacks, and training objectives built on them."""

import os

# MKL otherwise picks kernels by the alignment of memory, and with an odd number of features or
# neurons the bits of a sample depend on its place in the batch. It asks once, at its first use.
os.environ.setdefault("MKL_CBWR", "AUTO")

# OpenMP's threads otherwise wait for each other by spinning: on a machine that is busy with other
# things as well, PGD on a small network was seen to take fifteen times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
