"""`python -m robustbench_c robust-eval ...`: a console script where none is on the path."""

from __future__ import annotations

import sys

from robustbench_c.cli.programs import MODULES, run_program

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in MODULES:
        known = ", ".join(MODULES)
        sys.exit(f"robustbench_c: error: give the name of a command: {known}")
    run_program(sys.argv[1], sys.argv[2:])
