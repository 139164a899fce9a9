"""robustbench-c: the sandwich of certified and empirical robustness, sample by sample."""

__version__ = "0.1.0"
