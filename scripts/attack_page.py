"""The page that `attack_strength.py` makes of what it measured."""

from __future__ import annotations

from itertools import product

from attack_fixed import CLEAR, LEVELS
from attack_references import Row

from attacks.apgd import Projection
from attacks.threat import NORMS

STEPS, SAMPLES = 100, 100
FORMS: dict[Projection, str] = {"exact": "exact", "shrink": "as published"}
"""Of APGD's projection in L2; the other norms have one."""

INTRO = f"""# Attack strength

Made by `scripts/attack_strength.py`, in one process on the same samples for both sides.
AutoAttack is pyautoattack 0.2, foolbox is 3.3.

## APGD beside AutoAttack's

{STEPS} steps from the same starts, on those of the first {SAMPLES} test images that are right.
*Ours* and *AutoAttack's*: mean over the samples of the highest loss met. *Within*: share of samples
where ours is at most 1% lower. *Robust*: samples without a wrong point on the way. DLR has no
bound: where the three largest logits nearly tie, one sample can carry the mean. AutoAttack has no
probability margin: its APGD was given the loss.

In L2 *as published* shrinks onto the ball and then clips to the box, as AutoAttack does and
`--attack autoattack` here (`projection=shrink`); *exact*, the default, projects onto both at once.

| model | norm | projection | eps | loss | right | ours | AutoAttack's | within | robust: ours | \
AutoAttack's |
|---|---|---|---|---|---|---|---|---|---|---|
"""
JUDGED = """
The criterion: from the same starts the mean is no lower (by no more than 0.1%), and at least 95% of
the samples are within 1%. Row by row of the table above:

| norm | projection | rows | mean no lower | 95% within | share within | robust: ours | \
AutoAttack's | criterion |
|---|---|---|---|---|---|---|---|---|
"""
APART = """
Where it is missed the two end in different maxima, some higher and some lower. What each of them
breaks stands beside it.
"""
OTHER = """
## The other attacks

*Ratio*: ours to the reference's, where less is stronger (of distances: median of the samples' own
ratios).

| attack | reference | model | norm | measure | ours | reference's | ratio |
|---|---|---|---|---|---|---|---|
"""
CLOSED = """
## Linear models

32 samples each, with features that have units, a box of their own and one that is held: share of
samples whose distance is within 1% of the exact one. None is below it, or the run would have ended.

| attack | norm | classes | within 1% |
|---|---|---|---|
"""
ENUMERATED = """
## Small ReLU nets

The search for the nearest adversarial example (`attacks.nearest`, its defaults) on nets of random
weights with 8 hidden neurons, whose exact distances come from one programme for each pattern of
active neurons: 32 samples of each net. None is below the exact distance.

| net | features | classes | Linf within 1% | L2 | L1 |
|---|---|---|---|---|---|
"""


FIXED = f"""
## At a fixed eps

Linear models as above, 64 samples, at the median of their exact distances: share broken of those
whose exact distance is at least {CLEAR - 1:.0%} below eps. None is broken beyond its own.

| attack | norm | classes | could break | broken |
|---|---|---|---|---|
"""
SIMPLE = f"""
## Simple transformations

Beside scipy, numpy and Pillow, which try all of {LEVELS} strengths in every direction on each
sample (fmnist-cnn-pgd): samples broken, and the share whose smallest strength is the same.

| family | samples | broken: ours | the reference's | same strength |
|---|---|---|---|---|
"""


def cells(*values: object) -> str:
    """A line of a table."""
    return "| " + " | ".join(map(str, values)) + " |\n"


def judged(rows: list[Row]) -> str:
    """Whether the criterion holds, norm by norm, and in words where it does not."""
    text, words = "", ""
    for norm, form in product(NORMS, FORMS):
        group = [r for r in rows if (r["norm"], r.get("projection", "exact")) == (norm, form)]
        if not group:
            continue
        higher = sum(r["ours"] >= r["theirs"] - 1e-3 * abs(r["theirs"]) for r in group)
        near = sum(r["within"] >= 0.95 for r in group)
        held = [r["within"] for r in group]
        robust = (sum(r["robust"][side] for r in group) for side in (0, 1))
        met = "met" if higher == near == len(group) else "missed"
        spread = f"{min(held):.0%} to {max(held):.0%}"
        text += cells(norm, FORMS[form], len(group), higher, near, spread, *robust, met)
        if met == "missed":
            few, low = len(group) - near, len(group) - higher
            words += f"""
**Missed** in {norm}, {FORMS[form]} projection: on {few} of {len(group)} rows fewer than 95% of the
samples are within 1% (the share is {spread}), on {low} the mean is lower.
"""
    return text + words


def weaker(rows: list[Row]) -> str:
    """In words, the attacks that are weaker than their reference, by more than 1%."""
    return "".join(
        f"""
**Missed** by {r["attack"]} in {r["norm"]}: {r["measure"]} {r["ours"]:.4g} on {r["model"]}, where
{r["reference"]} has {r["theirs"]:.4g}.
"""
        for r in rows
        if r["ratio"] > 1.01
    )


def page(kept: dict[str, dict[str, Row]], names: dict[str, list[str]]) -> str:
    """The page of what is kept of the rows that are named, part by part."""
    rows = {part: [kept[part][n] for n in names[part] if n in kept[part]] for part in names}
    text = INTRO
    for r in rows["apgd"]:
        losses = (f"{r['ours']:.4f}", f"{r['theirs']:.4f}", f"{r['within']:.0%}")
        form = FORMS[r.get("projection", "exact")]
        of = (r["model"], r["norm"], form, f"{r['eps']:g}", r["loss"], r["right"])
        text += cells(*of, *losses, *r["robust"])
    text += JUDGED + judged(rows["apgd"]) + APART + OTHER
    for r in rows["others"]:
        who = (r["attack"], r["reference"], r["model"], r["norm"], r["measure"])
        text += cells(*who, f"{r['ours']:.4g}", f"{r['theirs']:.4g}", f"{r['ratio']:.3f}")
    text += weaker(rows["others"]) + CLOSED
    for r in rows["linear"]:
        text += cells(r["attack"], r["norm"], r["classes"], f"{r['within']:.0%}")
    text += FIXED
    for r in rows["fixed"]:
        text += cells(r["attack"], r["norm"], r["classes"], r["breakable"], f"{r['share']:.0%}")
    text += ENUMERATED + enumerated(rows["relu"]) + SIMPLE
    for r in rows["simple"]:
        text += cells(r["family"], r["samples"], r["ours"], r["theirs"], f"{r['same']:.0%}")
    missing = [f"- {part}: {n}\n" for part in names for n in names[part] if n not in kept[part]]
    return text + ("\n## Not measured\n\n" + "".join(missing) if missing else "")


def enumerated(rows: list[Row]) -> str:
    """A line for each small net, and one for all."""
    nets: dict[int, Row] = {}
    for r in rows:
        nets.setdefault(r["net"], {**r})[r["norm"]] = r["within"]
    text, norms = "", ("linf", "l2", "l1")
    for net, r in nets.items():
        shares = (f"{r[norm]:.1%}" if norm in r else "" for norm in norms)
        text += cells(net, r["features"], r["classes"], *shares)
    pooled = {n: [r[n] for r in nets.values() if n in r] for n in norms}
    means = (f"{sum(v) / len(v):.1%}" if v else "" for v in pooled.values())
    return text + cells("all", "", "", *means)
