"""Makes the table of flags in docs/attacks.md: every shipped model, diagnosed.

    python scripts/flag_table.py                     every model (minutes)
    python scripts/flag_table.py fmnist-cnn-ibp      these alone, without touching the page

Each is attacked by `auto` at the eps of its card (0.02 where the card names none; of tables 0.1 of
each feature's range) and proved by CROWN, on the first 80 test samples. Shares are of the samples
that no proof and no attack by gradients settled.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from attack_table import cases, samples_of, threat_on

from attacks.suites import AUTO
from leaderboards.diagnostics import counted, read_diagnostics, red_flags
from robustbench_c import evaluate, zoo
from robustbench_c.errors import did_you_mean
from robustbench_c.evaluation.certifying import CertifyConfig
from robustbench_c.files import write_atomically

PAGE = Path(__file__).parents[1] / "docs" / "attacks.md"
BEGIN, END = "<!-- flag_table.py -->\n", "<!-- end -->\n"
SAMPLES, EPS, EPS_OF_RANGE = 80, 0.02, 0.1
HEAD = (
    "| model | eps | looked at | certified | broken | left open | flags that hold of some |\n"
    "|---|---|---|---|---|---|---|\n"
)


def row_of(name: str) -> str:
    """Evaluate a model; its row."""
    card = zoo.card(name)
    case = cases()[name]
    samples = samples_of(case.source).head(SAMPLES)
    tabular = samples.x.dim() == 2
    eps = EPS if card.threat is None else card.threat.eps
    threat = threat_on(samples, EPS_OF_RANGE if tabular else eps)
    with tempfile.TemporaryDirectory() as folder:
        run = evaluate(
            zoo.load(name),
            samples,
            threat=threat,
            attack=AUTO,
            certify=CertifyConfig("crown"),
            device="cpu",
            out=folder,
            diagnose=True,
        )
        found, verdicts = read_diagnostics(run.store), run.verdicts
    assert found is not None
    steps = run.store.manifest.protocol.steps
    red = {flag.name for flag in red_flags(found, verdicts, steps)}
    said = []
    for sign, held, of in counted(found, verdicts, steps):
        if held:
            told = f"{sign.name} {held / of:.0%} ({held} of {of})"
            said.append(f"**{told}**" if sign.name in red else told)
    settled = verdicts.loc[list(found.looked_at), "verdict"].value_counts()
    counts = [int(settled.get(verdict, 0)) for verdict in ("certified", "broken", "undecided")]
    cells = [name, f"{threat.eps:g}", str(len(found.looked_at)), *map(str, counts), ", ".join(said)]
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*")
    models = parser.parse_args().models
    known = zoo.names()
    for name in models:
        if name not in known:
            parser.error(f"no model '{name}'; {did_you_mean(name, known)}")
    rows = []
    for name in models or known:
        rows.append(row_of(name))
        sys.stdout.write(rows[-1])
        sys.stdout.flush()
    if not models:
        before, rest = PAGE.read_text().split(BEGIN)
        page = before + BEGIN + HEAD + "".join(rows) + END + rest.split(END)[1]
        write_atomically(PAGE, page.encode())


if __name__ == "__main__":
    main()
