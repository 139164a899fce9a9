"""No proof, and no record, is about L0."""

from __future__ import annotations

import pytest
import torch

from attacks.errors import AttackError
from attacks.threat import ThreatModel
from certify.ball import InputSet
from certify.errors import CertifyError
from robustbench_c.cli.threats import threat_of
from robustbench_c.errors import UsageError
from robustbench_c.evaluation.threats import threat_info

THREAT = ThreatModel.box("l0", 2.0)


def test_proofs_refuse_it():
    with pytest.raises(CertifyError, match="no proof is about l0"):
        InputSet.around(torch.rand(2, 3), THREAT)


def test_records_and_the_command_line_refuse_it():
    with pytest.raises(AttackError, match="no threat model of l0"):
        threat_info(THREAT)
    with pytest.raises(UsageError, match="no norm 'l0'"):
        threat_of(None, None, "l0", 1.0, "input", None)
