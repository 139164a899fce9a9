"""Attacks in a few words, and what they cost, as people see it."""

from __future__ import annotations

import pytest

from attacks.apgd import APGDConfig
from attacks.fmn import FMNConfig
from attacks.foolbox_config import FoolboxConfig
from attacks.pgd import PGDConfig
from attacks.square import SquareConfig
from attacks.suites import AUTO
from attacks.threat import ThreatModel
from robustbench_c.cli.attack_tables import attack_words, suite_words
from robustbench_c.evaluation.budgets import AttackBudget
from robustbench_c.evaluation.protocol_steps import attack_step, protocol_steps

THREAT = ThreatModel.box("linf", 0.1)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (PGDConfig(), "it-40x5, step 0.025, ce"),
        (PGDConfig(goal="multi-targeted"), "it-40x5, step 0.025, ce, multi-targeted"),
        (APGDConfig(loss="dlr", targets=9), "it-100, targets 9, dlr"),
        (APGDConfig(restarts=3), "it-100, restarts 3, ce"),
        (FMNConfig(), "it-100, gamma 0.05"),
        (SquareConfig(), "it-5000, p 0.8"),
        (FoolboxConfig("LinfPGD", {"steps": 7}), "it-7"),
    ],
    ids=str,
)
def test_an_attack_in_a_few_words(config, words):
    assert attack_words(attack_step("it", config, THREAT)) == words


def test_limits_are_said_once():
    steps = list(protocol_steps(AUTO, None, THREAT, AttackBudget(60, 2.5)))
    assert suite_words(steps) == (
        "apgd-20, margin + apgd-halving-8, patience 0.5, dlr + square-300, p 0.8 + "
        "fab-near-50, targets 4, near 0.25 + square-near-2000, p 0.8, near 0.25; "
        "at most 60 queries; at most 2.5 s"
    )


def test_the_run_shows_what_attacks_cost(command, tmp_path):
    ended = command(
        *("robust-eval", "--device", "cpu", "--out", tmp_path, "--no-diagnose"),
        *("--model", "breast-cancer-mlp", "--samples", 20, "--eps", 0.02, "--attack", "square"),
        *("--set", "queries=9", "--max-queries", 5),
    )
    assert ended.code == 0, ended.err
    assert "robust (square-9, p 0.8; at most 5 queries)" in ended.out
    row = next(line for line in ended.out.splitlines() if "score" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[0] == "square"
    assert cells[5] == cells[7]
    assert cells[6] == "0"
    assert 0 < int(cells[5]) <= 5 * 20


def test_the_settings_of_many_attacks_have_a_line_of_their_own(command, tmp_path):
    ended = command(
        *("robust-eval", "--device", "cpu", "--out", tmp_path, "--no-diagnose", "--attack", "auto"),
        *("--model", "breast-cancer-mlp", "--samples", 3, "--eps", 0.02),
    )
    assert ended.code == 0, ended.err
    assert "robust (apgd, apgd-halving, square, fab-near, square-near)" in ended.out
    assert "\nattacks: apgd-20, margin + apgd-halving-8" in ended.out
    assert max(map(len, ended.out.splitlines()[1:9])) < 120  # the table
