"""No proof is about L0."""

from __future__ import annotations

import pytest
import torch

from attacks.sigma_zero import SigmaZeroConfig
from attacks.threat import ThreatModel
from certify.ball import InputSet
from certify.errors import CertifyError
from robustbench_c.errors import UsageError
from robustbench_c.evaluation.certifying import CertifyConfig
from robustbench_c.evaluation.protocol_steps import protocol_steps

THREAT = ThreatModel.box("l0", 2.0)


def test_proofs_refuse_it():
    with pytest.raises(CertifyError, match="no proof is about l0"):
        InputSet.around(torch.rand(2, 3), THREAT)
    with pytest.raises(UsageError, match="no proof is about l0"):
        protocol_steps(SigmaZeroConfig(), CertifyConfig("ibp"), THREAT)
