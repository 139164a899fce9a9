"""The competition's instances: none contradicts the reference, and how many are settled in time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from robustbench_c.foreign import load_onnx, load_vnnlib, read_instances, read_reference, verify

DATA = Path(os.environ.get("VNNCOMP_2021", Path(__file__).parents[4] / "shared/data/vnncomp2021"))
pytestmark = [
    pytest.mark.vnncomp,
    pytest.mark.slow,
    pytest.mark.skipif(
        not DATA.exists(), reason="the VNN-COMP 2021 data are not here: set VNNCOMP_2021"
    ),
]


@pytest.mark.parametrize(
    ("name", "seconds", "least"), [("mnistfc", 60.0, 28), ("acasxu", 116.0, 36)]
)
def test_verdicts(name, seconds, least, capsys):
    reference = read_reference(DATA / name / "reference.csv")
    lines, settled, wrong = [], 0, []
    for each in read_instances(DATA / name / "instances.csv"):
        found = verify(load_onnx(each.onnx), load_vnnlib(each.vnnlib), timeout=seconds)
        known = reference[each.onnx, each.vnnlib]
        settled += found.verdict in ("sat", "unsat") and found.seconds <= seconds
        question = f"{each.onnx.stem} {each.vnnlib.stem}"
        if {str(found.verdict), known} == {"sat", "unsat"}:
            wrong.append(question)
        lines.append(
            f"{question:48} {found.verdict:8} {known:8} {found.method:12} {found.seconds:8.2f} s"
        )
    with capsys.disabled():
        print(f"\n{name}: {settled} of {len(lines)} settled within {seconds:g} s")
        print("\n".join(lines))
    assert not wrong
    assert settled >= least
