"""Attacks and proofs leave alone what the data's attributes say, unless they are told otherwise."""

import pytest
import torch
from torch import nn

import robustbench_c
from attacks.pgd import PGDConfig
from attacks.threat import ThreatModel
from leaderboards.verdicts import Verdict
from robustbench_c.data import Attribute, from_tensors, load
from robustbench_c.evaluation import artefacts
from robustbench_c.evaluation.certifying import CertifyConfig
from robustbench_c.evaluation.threats import settled, threat_info, threat_of
from robustbench_c.evaluation.verify import verify

PGD = PGDConfig(steps=5, restarts=2)
CROWN = CertifyConfig("crown")


class Scores(nn.Module):
    """Class "bad" where a weighted sum of the columns is positive."""

    def __init__(self, weight: torch.Tensor, bias: float = 0.0):
        super().__init__()
        self.score = nn.Linear(len(weight), 1)
        self.score.weight.data = weight[None]
        self.score.bias.data = torch.tensor([bias])

    def forward(self, x):
        score = self.score(x)
        return torch.cat([-score, score], 1)


@pytest.fixture(scope="module")
def credit():
    return load("german-credit").head(60)


def predicted(model, data):
    """The same samples, of the classes that the model predicts."""
    return from_tensors(
        data.x,
        model(data.x).argmax(1),
        classes=data.classes,
        feature_names=data.feature_names,
        attributes=data.attributes,
    )


def run(model, data, threat, tmp_path, **options):
    return robustbench_c.evaluate(
        model.eval(),
        data,
        threat=threat,
        attack=PGD,
        certify=CROWN,
        device="cpu",
        diagnose=False,
        out=tmp_path,
        save_adversarial=True,
        **options,
    )


def moved(found) -> list[int]:
    """Columns that change in some stored adversarial example."""
    (stored,) = artefacts.read(found.store, "pgd")
    return (stored.adversarial != stored.clean).any(0).nonzero()[:, 0].tolist()


def test_a_decision_by_protected_columns_alone_cannot_be_broken(credit, tmp_path):
    weight = torch.zeros(61)
    weight[list(credit.protected_columns)] = torch.tensor([1.0, -1, 1, -1, 0.5, -1, 1])
    model = Scores(weight, 0.03)
    data = predicted(model, credit)
    held = run(model, data, ThreatModel.box("linf", 0.9), tmp_path)
    assert held.summary.counts.certified == 60
    free = torch.zeros(61, dtype=torch.bool)
    freed = run(model, data, ThreatModel.box("linf", 0.9, immutable=free), tmp_path)
    assert freed.summary.counts.broken == 60
    assert held.folder != freed.folder


def test_only_the_free_columns_move(credit, tmp_path):
    generator = torch.Generator().manual_seed(0)
    model = Scores(torch.randn(61, generator=generator))
    data = predicted(model, credit)
    free = sorted(set(range(61)) - set(credit.immutable_columns))
    held = run(model, data, ThreatModel.box("linf", 0.3), tmp_path)
    assert 0 < held.summary.counts.broken < 60
    assert set(moved(held)) == set(free)
    assert held.store.manifest.protocol.threat.immutable == "0-3,5-19,21-30,32-38,40-50,52-55,57-60"
    line = "55 of 61 features may not change: those of protected, one-hot and immutable attributes"
    assert line in held.store.manifest.notices

    # certified where, and only where, no movement of the free columns changes the class
    weight = model.score.weight[0, free].detach().double()
    x = data.x[:, free].double()
    score = model(data.x)[:, 1].detach().double()
    away = -score.sign()[:, None] * weight.sign()
    reached = (x + 0.3 * away).clamp(0, 1)
    flips = (score + ((reached - x) * weight).sum(1)).sign() != score.sign()
    certified = held.verdicts["verdict"] == Verdict.CERTIFIED
    assert torch.equal(torch.tensor(certified.to_numpy(dtype=bool)), ~flips)


def test_a_mask_of_ones_own_stands(credit, tmp_path):
    generator = torch.Generator().manual_seed(0)
    model = Scores(torch.randn(61, generator=generator))
    data = predicted(model, credit)
    own = torch.arange(61) < 40
    found = run(model, data, ThreatModel.box("linf", 0.3, immutable=own), tmp_path)
    assert set(moved(found)) <= set(range(40, 61))
    assert set(moved(found)) & set(credit.immutable_columns)
    assert found.store.manifest.protocol.threat.immutable == "0-39"
    assert "40 of 61 features may not change" in found.store.manifest.notices


@pytest.mark.parametrize("freed", [False, True])
def test_the_record_can_be_checked(credit, tmp_path, freed):
    generator = torch.Generator().manual_seed(0)
    model = Scores(torch.randn(61, generator=generator))
    mask = torch.zeros(61, dtype=torch.bool) if freed else None
    found = run(model, credit, ThreatModel.box("linf", 0.1, immutable=mask), tmp_path)
    assert found.summary.counts.broken > 0
    checked = verify(found.store, model, credit, prove=True)
    assert not checked.problems
    assert checked.replayed == found.summary.counts.broken


@pytest.mark.parametrize("mask", [None, torch.zeros(61, dtype=torch.bool), torch.arange(61) == 4])
def test_settled_threats_stay_and_come_back(credit, mask):
    once = settled(ThreatModel.box("linf", 0.1, immutable=mask), credit)
    assert settled(once, credit).sha256() == once.sha256()
    assert threat_of(threat_info(once), credit).sha256() == once.sha256()
    expected = credit.immutable_mask if mask is None else mask
    assert torch.equal(once.immutable, expected)


def test_attributes_that_are_all_free_change_nothing(tmp_path):
    x = torch.rand(4, 2, generator=torch.Generator().manual_seed(0))
    data = from_tensors(x, torch.tensor([0, 1, 0, 1]), attributes=(Attribute("a", (0,)),))
    assert settled(ThreatModel.box("linf", 0.1), data).immutable is None
