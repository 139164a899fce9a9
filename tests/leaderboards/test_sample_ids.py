from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaderboards.errors import RecordError
from leaderboards.sample_ids import format_ids, hash_ids, parse_ids


def test_ranges() -> None:
    assert format_ids([7, 0, 2, 1, 1004]) == "0-2,7,1004"
    assert parse_ids("0-2,7,1004").tolist() == [0, 1, 2, 7, 1004]


@given(st.sets(st.integers(0, 300), min_size=1))
def test_round_trip_and_hash_depend_on_the_set_only(ids: set[int]) -> None:
    shuffled = np.array(sorted(ids, key=lambda i: (i * 7919) % 307))
    assert parse_ids(format_ids(shuffled)).tolist() == sorted(ids)
    assert hash_ids(shuffled) == hash_ids(np.array(sorted(ids)))
    assert hash_ids(shuffled) != hash_ids(np.array([*sorted(ids), 301]))


@pytest.mark.parametrize("text", ["", "a", "-1", "3-1", "5,4", "0-3,3", "0--1", "1,", "٣", "1\n"])
def test_malformed_ranges_are_refused(text: str) -> None:
    with pytest.raises(RecordError):
        parse_ids(text)


def test_a_claim_of_a_billion_samples_takes_no_memory() -> None:
    with pytest.raises(RecordError, match="at most"):
        parse_ids("0-999999999999")


@pytest.mark.parametrize("ids", [[], [-1, 2], [1, 1]])
def test_sets_that_are_none_are_refused(ids: list[int]) -> None:
    with pytest.raises(RecordError):
        format_ids(ids)
