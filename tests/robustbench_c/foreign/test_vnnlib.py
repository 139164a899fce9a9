"""Properties: what a text means, branch by branch, and what is refused."""

from __future__ import annotations

import gzip
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_c.errors import DataError
from robustbench_c.foreign import Case, Halfspace, Property, load_vnnlib, parse_vnnlib

DECLARE = """
(declare-const X_0 Real) (declare-const X_1 Real) ; two inputs
(declare-const Y_0 Real) (declare-const Y_1 Real)
"""
BOX = "(assert (>= X_0 0)) (assert (<= X_0 1)) (assert (and (<= -0.5 X_1) (<= X_1 0.5)))"


def half(*factors: int, bound: str = "0", strict: bool = False) -> Halfspace:
    kept = tuple((i, factor) for i, factor in enumerate(factors) if factor)
    return Halfspace(kept, Fraction(bound), strict)


def unsafe(text: str):
    (case,) = parse_vnnlib(f"{DECLARE}{BOX}(assert {text})").cases
    assert case.lower == (0, Fraction(-1, 2))
    assert case.upper == (1, Fraction(1, 2))
    return case.unsafe


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("(<= Y_0 Y_1)", [[half(1, -1)]]),
        ("(>= Y_0 3.991125645861615)", [[half(-1, bound="-3.991125645861615")]]),
        ("(<= (+ (* 0.5 Y_0) (- Y_1) 1) 1e-2)", [[half(1, -2, bound="-1.98")]]),
        ("(<= (* 2 (- Y_0 Y_1 3)) (/ 1 3))", [[half(1, -1, bound="19/6")]]),
        ("(<= Y_0 (- Y_0 (* 4 Y_1 0.5)))", [[half(0, 1)]]),
        ("(and (<= Y_0 Y_1) (>= Y_1 2))", [[half(1, -1), half(0, -1, bound="-2")]]),
        ("(<= 0 Y_0 Y_1)", [[half(-1), half(1, -1)]]),
        ("(or (<= Y_0 1) (and (>= Y_0 2)))", [[half(1, bound="1")], [half(-1, bound="-2")]]),
        (
            "(and (or (<= Y_0 1) (<= Y_1 2)) (<= Y_0 Y_1))",
            [[half(1, -1), half(1, bound="1")], [half(1, -1), half(0, 1, bound="2")]],
        ),
        ("(or (<= Y_0 1) (or (<= Y_0 1)))", [[half(1, bound="1")]]),
        ("(< Y_0 Y_1)", [[half(1, -1, strict=True)]]),
        ("(> Y_0 1)", [[half(-1, bound="-1", strict=True)]]),
    ],
)
def test_outputs(text, meaning):
    assert unsafe(text) == tuple(map(tuple, meaning))


def test_each_branch_keeps_its_own_box():
    text = f"""{DECLARE}
    (assert (>= X_0 -5)) (assert (<= X_0 5))
    (assert (or
      (and (<= X_0 1) (>= X_1 0) (<= X_1 1) (<= Y_0 0))
      (and (>= X_0 3) (>= X_1 2) (<= X_1 4) (<= Y_1 0))
      (and (<= X_0 1) (>= X_1 0) (<= X_1 1) (>= Y_1 7))))"""
    first, second = parse_vnnlib(text).cases
    assert (first.lower, first.upper) == ((-5, 0), (1, 1))
    assert first.unsafe == ((half(1),), (half(0, -1, bound="-7"),))
    assert (second.lower, second.upper) == ((3, 2), (5, 4))
    assert second.unsafe == ((half(0, 1),),)


def test_ors_of_inputs_and_outputs_multiply():
    text = f"""{DECLARE}
    (assert (or (and (>= X_0 0) (<= X_0 1)) (and (>= X_0 2) (<= X_0 3))))
    (assert (and (>= X_1 0) (<= X_1 1)))
    (assert (or (<= Y_0 0) (<= Y_1 0)))"""
    both = ((half(1),), (half(0, 1),))
    assert parse_vnnlib(text).cases == (
        Case((Fraction(0), Fraction(0)), (Fraction(1), Fraction(1)), 2, both),
        Case((Fraction(2), Fraction(0)), (Fraction(3), Fraction(1)), 2, both),
    )


def test_the_tightest_of_several_bounds_counts():
    (case,) = parse_vnnlib(
        f"{DECLARE}{BOX}(assert (<= (* -2 X_0) -0.5))(assert (<= X_0 9))(assert (<= Y_0 0))"
    ).cases
    assert (case.lower[0], case.upper[0]) == (Fraction(1, 4), 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(assert (<= Y_0 Y_2))", "'Y_2' is not declared"),
        ("(assert (<= Y_0 nan))", "'nan' is no number"),
        ("(assert (<= Y_0 inf))", "'inf' is no number"),
        ("(assert (<= Y_0 0x10))", "no number"),
        ("(assert (<= Y_0 1e999999999))", "no number"),
        ("(assert (<= Y_0 (* 1e900 1e900 1e900 1e900 1e900 1e900)))", "too many digits"),
        ("(assert (<= Y_0 1e39))", "beyond 3e38"),
        ("(assert (<= X_0 1e39)) (assert (<= Y_0 0))", "beyond 3e38"),
        ("(assert (<= (* Y_0 Y_1) 0))", "not linear"),
        ("(assert (<= (/ 1 Y_0) 0))", "division"),
        ("(assert (<= (/ Y_0 0) 0))", "division"),
        ("(assert (<= (+) 0))", "a term is expected"),
        ("(assert (<= (abs Y_0) 0))", "'abs' is not supported"),
        ("(assert (<= Y_0))", "two terms"),
        ("(assert (<= 0 1))", "without variables"),
        ("(assert (<= Y_0 Y_0))", "without variables"),
        ("(assert (<= X_0 Y_0))", "between inputs and outputs"),
        ("(assert (<= X_0 X_1))", "between inputs"),
        ("(assert (< X_0 1))", "strict"),
        ("(assert (not (<= Y_0 0)))", "'not' is not supported"),
        ("(assert (= Y_0 0))", "'=' is not supported"),
        ("(assert (or))", "empty"),
        ("(assert Y_0)", "a formula is expected"),
        ("(assert)", "one formula"),
        ("(assert (<= Y_0 0) (<= Y_1 0))", "one formula"),
        ("(assert (<= X_0 0.5))", "nothing is asserted of the outputs"),
        ("(assert (or (<= Y_0 0) (<= X_0 0.5)))", "nothing is asserted of the outputs"),
        ("(assert (or (<= Y_0 0) (and (>= X_0 2) (<= Y_0 0))))", "box of X_0 is empty"),
        ("(declare-const X_0 Real)", "declared twice"),
        ("(declare-const Z_0 Real)", "'Z_0' is neither"),
        ("(declare-const X_02 Real)", "'X_02' is neither"),
        ("(declare-const X_3 Real)", "X_2 is not"),
        ("(declare-const X_2 Int)", "Real"),
        ("(declare-fun X_2 (Real) Real)", "Real"),
        ("(declare-const X_2 Real) (assert (<= Y_0 0))", "X_2 has no lower bound"),
        ("(push 1)", "'push' is not supported"),
        ("(vnnlib-version <2.0>)", "not supported"),
        ("()", "not supported"),
        ("(assert (<= Y_0 0)", "never closed"),
        ("(assert (<= Y_0 0)))", "too many"),
        ("hello", "outside of brackets"),
        ('(set-info "', "not expected"),
        ("(" * 200, "nested deeper"),
    ],
)
def test_refused(text, reason, tmp_path):
    path = tmp_path / "p.vnnlib"
    path.write_text(f"{DECLARE}{BOX}\n{text}")
    with pytest.raises(DataError) as caught:
        load_vnnlib(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert reason in message
    assert "\n" not in message


def test_the_line_is_named():
    with pytest.raises(DataError, match=r"^line 6: 'Y_7' is not declared$"):
        parse_vnnlib(f"{DECLARE}\n(assert (or (<= Y_0 0)\n(<= Y_7 0)))")


def test_a_long_sum_takes_no_long_time():
    many = "".join(f"(declare-const Y_{i} Real)" for i in range(2, 5000))
    terms = " ".join(f"(* {i} Y_{i})" for i in range(5000))
    (case,) = parse_vnnlib(f"{DECLARE}{many}{BOX}(assert (<= (+ {terms}) 1))").cases
    assert case.unsafe[0][0].coefficients[-1] == (4999, 4999)


def test_a_flood_of_branches_ends():
    flood = "(assert (or (<= Y_0 0) (<= Y_1 0)))" * 40
    with pytest.raises(DataError, match="too many branches"):
        parse_vnnlib(DECLARE + BOX + flood)


def test_files(tmp_path):
    text = f"(set-logic QF_LRA){DECLARE}{BOX}(assert (<= Y_0 0))(check-sat)"
    packed, binary = tmp_path / "p.vnnlib.gz", tmp_path / "b.vnnlib"
    packed.write_bytes(gzip.compress(text.encode()))
    assert load_vnnlib(packed) == parse_vnnlib(text)
    binary.write_bytes(b"\xff\xfe\x00")
    packed.write_bytes(packed.read_bytes()[:-9])
    for path in (binary, packed, tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match=str(path)):
            load_vnnlib(path)


NUMBERS = st.decimals(-1000, 1000, allow_nan=False, allow_infinity=False, places=6).map(Fraction)


@st.composite
def properties(draw):
    inputs, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    factors = st.lists(st.sampled_from([-2, -1, 0, 1, 1, 3]), min_size=outputs, max_size=outputs)

    def halfspace():
        row = draw(factors.filter(any))
        unit = Fraction(1, int(np.gcd.reduce(row)))
        kept = tuple((i, int(f * unit)) for i, f in enumerate(row) if f)
        return Halfspace(kept, draw(NUMBERS), draw(st.booleans()))

    boxes = {}
    for _ in range(draw(st.integers(1, 4))):
        ends = [sorted((draw(NUMBERS), draw(NUMBERS))) for _ in range(inputs)]
        box = tuple(low for low, _ in ends), tuple(high for _, high in ends)
        conjunction = dict.fromkeys(halfspace() for _ in range(draw(st.integers(1, 3))))
        boxes.setdefault(box, {})[tuple(conjunction)] = None
    cases = tuple(Case(*box, outputs, tuple(unsafe)) for box, unsafe in boxes.items())
    return Property(inputs, outputs, cases)


def written(asked: Property) -> str:
    """The property in VNN-LIB, one branch for each conjunction."""

    def number(value: Fraction) -> str:
        return f"(/ {value.numerator} {value.denominator})"

    lines = [f"(declare-const X_{i} Real)" for i in range(asked.inputs)]
    lines += [f"(declare-const Y_{i} Real)" for i in range(asked.outputs)]
    branches = []
    for case in asked.cases:
        box = [f"(>= X_{i} {number(low)})" for i, low in enumerate(case.lower)]
        box += [f"(<= X_{i} {number(high)})" for i, high in enumerate(case.upper)]
        for conjunction in case.unsafe:
            halves = [
                f"({'<' if each.strict else '<='} "
                f"(+ {' '.join(f'(* {f} Y_{i})' for i, f in each.coefficients)} 0) "
                f"{number(each.bound)})"
                for each in conjunction
            ]
            branches.append(f"(and {' '.join(box + halves)})")
    return "\n".join([*lines, f"(assert (or {' '.join(branches)}))"])


@settings(max_examples=80, deadline=None)
@given(properties())
def test_what_is_written_is_read(asked):
    assert parse_vnnlib(written(asked)) == asked


@settings(max_examples=120, deadline=None)
@given(properties(), st.data())
def test_damaged_text_is_refused_or_means_what_it_says(asked, data):
    text = written(asked)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 5)))
    damaged = text[:start] + data.draw(st.text('()XY_0123.eE+-*/<=;| \n"andor', max_size=4))
    try:
        read = parse_vnnlib(damaged + text[end:])
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017  (it may as well still be legal)
    else:
        assert parse_vnnlib(written(read)) == read


@settings(max_examples=120, deadline=None)
@given(st.text('()XYassertdeclare-const Real_01<=>.;\n"|', max_size=80))
def test_any_text_is_refused_in_one_line(text):
    with pytest.raises(DataError) as caught:
        parse_vnnlib(text)
    assert "\n" not in str(caught.value)


def test_boxes_are_rounded_to_the_safe_side():
    (case,) = parse_vnnlib(f"{DECLARE}{BOX}(assert (>= X_0 0.1))(assert (<= Y_0 0))").cases
    for dtype in (np.float32, np.float64):
        (outer, _), (inner, _) = case.outer(dtype), case.inner(dtype)
        assert outer.dtype == inner.dtype == dtype
        assert Fraction(float(outer[0])) < Fraction(1, 10) < Fraction(float(inner[0]))
        assert np.nextafter(outer[0], dtype(1)) == inner[0]
        assert outer[1] == inner[1] == -0.5


@settings(max_examples=60, deadline=None)
@given(properties())
def test_outer_contains_and_inner_is_contained(asked):
    for case in asked.cases:
        for dtype in (np.float32, np.float64):
            (outer_low, outer_high), (low, high) = case.outer(dtype), case.inner(dtype)
            for i in range(asked.inputs):
                assert Fraction(float(outer_low[i])) <= case.lower[i] <= Fraction(float(low[i]))
                assert Fraction(float(high[i])) <= case.upper[i] <= Fraction(float(outer_high[i]))


def test_a_box_without_a_float():
    text = f"{DECLARE}{BOX}(assert (>= X_0 0.1))(assert (<= X_0 0.1))(assert (<= Y_0 0))"
    (case,) = parse_vnnlib(text).cases
    lower, upper = case.inner(np.float32)
    assert lower[0] > upper[0]
    assert not case.holds([0.1, 0.0], [-1.0, 0.0])


def test_a_counterexample_has_no_tolerance():
    asked = parse_vnnlib(f"{DECLARE}{BOX}(assert (and (<= Y_0 Y_1) (< Y_0 1)))")
    assert asked.holds([[1.0], [0.5]], [0.5, 0.5])
    assert not asked.holds([np.nextafter(1.0, 2.0), 0.5], [0.5, 0.5])
    assert not asked.holds([np.nextafter(np.float32(1), np.float32(2)), 0.5], [0.5, 0.5])
    assert not asked.holds([1.0, 0.5], [np.nextafter(0.5, 1.0), 0.5])
    assert not asked.holds([1.0, 0.5], [1.0, 1.0])  # on the boundary of the strict one
    for bad in (np.nan, np.inf, -np.inf):
        assert not asked.holds([bad, 0.0], [0.0, 0.0])
        assert not asked.holds([0.0, 0.0], [bad, 0.0])
    with pytest.raises(DataError, match="1 outputs"):
        asked.holds([0.0, 0.0], [0.0])
    with pytest.raises(DataError, match="3 inputs"):
        asked.holds([0.0, 0.0, 0.0], [0.0, 0.0])


def test_a_counterexample_is_of_one_case():
    text = f"""{DECLARE}(assert (or
      (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1) (<= Y_0 0))
      (and (>= X_0 2) (<= X_0 3) (>= X_1 0) (<= X_1 1) (<= Y_1 0))))"""
    asked = parse_vnnlib(text)
    assert asked.holds([0, 0], [-1, 1])
    assert not asked.holds([0, 0], [1, -1])
    assert asked.holds([2, 0], [1, -1])
    assert not asked.holds([2, 0], [-1, 1])


@settings(max_examples=60, deadline=None)
@given(properties(), st.data())
def test_a_proven_specification_excludes_counterexamples(asked, data):
    """If each clause has a positive row, exactly, then no output is unsafe."""
    numbers = st.floats(-2000, 2000, width=32)
    for case in asked.cases:
        for dtype in (torch.float32, torch.float64):
            spec = case.specification(dtype)
            rows = len(spec.clause)
            assert spec.coefficients.shape == (1, rows, asked.outputs)
            assert spec.offset.shape == (1, rows)
            assert sorted(set(spec.clause)) == list(range(len(case.unsafe)))
            y = np.array(data.draw(st.tuples(*[numbers] * asked.outputs)))
            exact = [
                sum(Fraction(c) * Fraction(v) for c, v in zip(row, y.tolist(), strict=True))
                + Fraction(offset)
                for row, offset in zip(
                    spec.coefficients[0].tolist(), spec.offset[0].tolist(), strict=True
                )
            ]
            proven = {clause for clause, row in zip(spec.clause, exact, strict=True) if row > 0}
            for clause, conjunction in enumerate(case.unsafe):
                if clause in proven:
                    assert not all(
                        each.holds(list(map(Fraction, y.tolist()))) for each in conjunction
                    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_specification_by_hand(dtype):
    text = "(or (<= Y_0 0.1) (and (>= Y_0 0.1) (<= Y_1 (* 2 Y_0))))"
    (case,) = parse_vnnlib(f"{DECLARE}{BOX}(assert {text})").cases
    spec = case.specification(dtype)
    assert spec.clause == (0, 1, 1)
    assert spec.coefficients.dtype == spec.offset.dtype == dtype
    assert spec.coefficients.tolist() == [[[1, 0], [-1, 0], [-2, 1]]]
    below, above, zero = spec.offset[0]
    assert zero == 0
    # Rounded so that what is proved is more than what is asked, by one step.
    assert Fraction(below.item()) < Fraction(-1, 10) < Fraction(torch.nextafter(below, zero).item())
    assert (
        Fraction(above.item()) < Fraction(1, 10) < Fraction(torch.nextafter(above, zero + 1).item())
    )


def test_a_factor_that_is_no_float_is_refused():
    (case,) = parse_vnnlib(f"{DECLARE}{BOX}(assert (<= (+ (* 0.123456789 Y_0) Y_1) 0))").cases
    assert case.specification(torch.float64).coefficients.tolist() == [[[123456789.0, 1e9]]]
    with pytest.raises(DataError, match=r"123456789 of Y_0 is not a number of torch\.float32"):
        case.specification(torch.float32)
