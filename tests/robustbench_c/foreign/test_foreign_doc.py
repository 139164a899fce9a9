"""The page lists exactly the operators that there are rules for."""

from __future__ import annotations

import re
from pathlib import Path

from robustbench_c.foreign.onnx_ops import RULES

PAGE = Path(__file__).parents[3] / "docs" / "foreign.md"


def test_operators():
    table = PAGE.read_text().split("Operators:")[1].split("Refused")[0]
    assert set(re.findall(r"\b[A-Z]\w+", table)) == set(RULES)
