"""What an adversary can do: threat models, attacks, and training objectives built on them."""

import os

# MKL otherwise picks kernels by the alignment of memory, and with an odd number of features or
# neurons the bits of a sample depend on its place in the batch. It asks once, at its first use.
os.environ.setdefault("MKL_CBWR", "AUTO")
