"""Statlog German credit: 1,000 applicants for a credit, good and bad risks, from the package.

H. Hofmann, "Statlog (German Credit Data)", UCI Machine Learning Repository, 1994. What the codes
mean is taken from the description that comes with it. Codes that no row has (A47, A95) get no
column.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from robustbench_c.data.dataset import Dataset
from robustbench_c.data.idx import read_bytes
from robustbench_c.data.splits import take
from robustbench_c.data.tabular import Category, Number, Table
from robustbench_c.errors import DataError

LICENCE = "CC BY 4.0, Hans Hofmann (UCI Machine Learning Repository)"
FILE = Path(__file__).parent / "assets" / "german-credit.data.gz"
SHA256 = "b21f3d81db8071257d5ff1deaeba1fd4303b62712e6fcc9715c7a86202cb5871"
"""Of the published file german.data, which the package holds gzipped."""

TABLE = Table(
    name="german-credit",
    separator=" ",
    fields=(
        Category(
            "checking-account",
            {
                "A11": "below 0 DM",
                "A12": "0 to 200 DM",
                "A13": "200 DM or more",
                "A14": "none",
            },
        ),
        Number("duration", 4, 72),
        Category(
            "credit-history",
            {
                "A30": "none taken or all paid back",
                "A31": "all at this bank paid back",
                "A32": "paid back till now",
                "A33": "delayed in the past",
                "A34": "critical",
            },
        ),
        Category(
            "purpose",
            {
                "A40": "new car",
                "A41": "used car",
                "A42": "furniture",
                "A43": "radio or television",
                "A44": "appliances",
                "A45": "repairs",
                "A46": "education",
                "A48": "retraining",
                "A49": "business",
                "A410": "others",
            },
        ),
        Number("credit-amount", 250, 18_424),
        Category(
            "savings",
            {
                "A61": "below 100 DM",
                "A62": "100 to 500 DM",
                "A63": "500 to 1000 DM",
                "A64": "1000 DM or more",
                "A65": "unknown or none",
            },
        ),
        Category(
            "employment",
            {
                "A71": "unemployed",
                "A72": "below 1 year",
                "A73": "1 to 4 years",
                "A74": "4 to 7 years",
                "A75": "7 years or more",
            },
        ),
        Number("installment-rate", 1, 4),
        Category(
            "status-and-sex",
            {
                "A91": "male divorced or separated",
                "A92": "female divorced or separated or married",
                "A93": "male single",
                "A94": "male married or widowed",
            },
            protected=True,
        ),
        Category(
            "other-debtors",
            {"A101": "none", "A102": "co-applicant", "A103": "guarantor"},
        ),
        Number("residence-since", 1, 4),
        Category(
            "property",
            {
                "A121": "real estate",
                "A122": "savings agreement or life insurance",
                "A123": "car or other",
                "A124": "unknown or none",
            },
        ),
        Number("age", 19, 75, protected=True),
        Category("installment-plans", {"A141": "bank", "A142": "stores", "A143": "none"}),
        Category("housing", {"A151": "rent", "A152": "own", "A153": "for free"}),
        Number("existing-credits", 1, 4),
        Category(
            "job",
            {
                "A171": "unemployed or unskilled non-resident",
                "A172": "unskilled resident",
                "A173": "skilled",
                "A174": "management or highly qualified",
            },
        ),
        Number("people-liable", 1, 2),
        Category("telephone", {"A191": "none", "A192": "registered"}),
        Category("foreign-worker", {"A201": "yes", "A202": "no"}, protected=True),
    ),
    classes={"1": "good", "2": "bad"},
    licence=LICENCE,
    source="https://doi.org/10.24432/C5NC77",
)


def load_german_credit(split: str) -> Dataset:
    """Return the set encoded, (n, 61) in [0, 1].

    Args:
        split: "train" (750), "test" (250) or "all" (1,000), see `splits.take`.

    Raises:
        DataError: The package's file is damaged.
    """
    raw = read_bytes(FILE)
    if hashlib.sha256(raw).hexdigest() != SHA256:
        raise DataError(f"{FILE}: not the published file; install the package anew")
    return take(TABLE.dataset(raw.decode("ascii"), str(FILE)), split)
