"""The table beside AutoAttack is read off what was measured with the suites as they are now."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import attack_table  # noqa: E402
from attack_table import PAGE, page, read, suites_sha256  # noqa: E402

from attacks.suites import AUTO  # noqa: E402


def test_the_page_is_that_of_what_was_measured():
    assert PAGE.read_text() == page(read())


@pytest.mark.parametrize("change", [{"suites_sha256": "0" * 64}, None])
def test_a_row_of_other_settings_is_named_and_not_counted(change):
    rows = read()
    name = rows[0]["model"]
    if change is None:
        del rows[0]["suites_sha256"]
    else:
        rows[0] |= change
    text, without = page(rows), page(rows[1:])
    assert text.startswith(without)
    assert f"| {name} |" not in text.split("## ")[0]
    assert text.endswith(f"and not counted:\n\n- {name}\n")


def test_another_setting_of_auto_is_another_hash(monkeypatch):
    before = [suites_sha256(itself) for itself in (True, False)]
    assert len(set(before)) == 2
    monkeypatch.setattr(attack_table, "AUTO", replace(AUTO, near=0.3))
    assert not set(before) & {suites_sha256(itself) for itself in (True, False)}
