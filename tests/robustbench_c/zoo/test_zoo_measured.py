"""Cards that name `--attack auto` were measured by the suite as it is now."""

from __future__ import annotations

import re

import pytest

from attacks.suites import AUTO
from attacks.threat import ThreatModel
from leaderboards.manifest import Protocol
from leaderboards.verdicts import RULES_VERSION
from robustbench_c import data, zoo
from robustbench_c.evaluation.protocol_steps import protocol_steps
from robustbench_c.evaluation.threats import settled, threat_info

MEASURED = [n for n in zoo.names() if any("auto" in r.protocol for r in zoo.card(n).robust)]


def test_there_are_such_cards():
    assert {"fmnist-cnn-pgd", "fmnist-cnn-trades", "fmnist-cnn-awp"} <= set(MEASURED)


@pytest.mark.parametrize("name", MEASURED)
def test_the_suite_is_that_of_the_card(name):
    card, test = zoo.card(name), data.load("fashion-mnist-mini")
    assert card.threat is not None
    threat = settled(ThreatModel(card.threat.norm, card.threat.eps, test.lower, test.upper), test)
    steps = protocol_steps(AUTO, None, threat)
    now = Protocol(threat=threat_info(threat), steps=steps, rules=RULES_VERSION).sha256
    (told,) = (r.protocol for r in card.robust if "auto" in r.protocol)
    assert re.fullmatch(rf"auto, protocol {now[:12]}", told), told
