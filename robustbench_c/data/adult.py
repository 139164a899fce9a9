"""Adult: 32,561 people of the US census of 1994, and whether they earn above 50,000 dollars.

B. Becker, R. Kohavi, "Adult", UCI Machine Learning Repository, 1996. Of its files, adult.data
alone is read. Its spelling of categories is kept; "?" (not known) is a category like the others.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from robustbench_c.data.dataset import Dataset
from robustbench_c.data.download import cache_folder, download
from robustbench_c.data.idx import read_bytes
from robustbench_c.data.splits import take
from robustbench_c.data.tabular import Category, LeftOut, Number, Table
from robustbench_c.errors import DataError

LICENCE = "CC BY 4.0, Barry Becker and Ronny Kohavi (UCI Machine Learning Repository)"
FILE = "adult.data"
SHA256 = "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d"
"""Of the file's content, unpacked if it is gzipped."""
MIRRORS = ("https://archive.ics.uci.edu/ml/machine-learning-databases/adult/",)


def _same(*codes: str) -> dict[str, str]:
    return {code: code for code in codes}


TABLE = Table(
    name="adult",
    separator=",",
    fields=(
        Number("age", 17, 90, immutable=True),
        Category(
            "workclass",
            _same(
                "Private",
                "Self-emp-not-inc",
                "Self-emp-inc",
                "Federal-gov",
                "Local-gov",
                "State-gov",
                "Without-pay",
                "Never-worked",
                "?",
            ),
        ),
        LeftOut("fnlwgt"),
        LeftOut("education"),
        Number("education-num", 1, 16),
        Category(
            "marital-status",
            _same(
                "Married-civ-spouse",
                "Divorced",
                "Never-married",
                "Separated",
                "Widowed",
                "Married-spouse-absent",
                "Married-AF-spouse",
            ),
        ),
        Category(
            "occupation",
            _same(
                "Tech-support",
                "Craft-repair",
                "Other-service",
                "Sales",
                "Exec-managerial",
                "Prof-specialty",
                "Handlers-cleaners",
                "Machine-op-inspct",
                "Adm-clerical",
                "Farming-fishing",
                "Transport-moving",
                "Priv-house-serv",
                "Protective-serv",
                "Armed-Forces",
                "?",
            ),
        ),
        Category(
            "relationship",
            _same("Wife", "Own-child", "Husband", "Not-in-family", "Other-relative", "Unmarried"),
        ),
        Category(
            "race",
            _same("White", "Asian-Pac-Islander", "Amer-Indian-Eskimo", "Other", "Black"),
            protected=True,
        ),
        Category("sex", {"Female": "female", "Male": "male"}, protected=True),
        Number("capital-gain", 0, 99_999),
        Number("capital-loss", 0, 4_356),
        Number("hours-per-week", 1, 99),
        Category(
            "native-country",
            _same(
                *("United-States", "Cambodia", "England", "Puerto-Rico", "Canada", "Germany"),
                *("Outlying-US(Guam-USVI-etc)", "India", "Japan", "Greece", "South", "China"),
                *("Cuba", "Iran", "Honduras", "Philippines", "Italy", "Poland", "Jamaica"),
                *("Vietnam", "Mexico", "Portugal", "Ireland", "France", "Dominican-Republic"),
                *("Laos", "Ecuador", "Taiwan", "Haiti", "Columbia", "Hungary", "Guatemala"),
                *("Nicaragua", "Scotland", "Thailand", "Yugoslavia", "El-Salvador"),
                *("Trinadad&Tobago", "Peru", "Hong", "Holand-Netherlands", "?"),
            ),
        ),
    ),
    classes={"<=50K": "<=50K", ">50K": ">50K"},
    licence=LICENCE,
    source="https://doi.org/10.24432/C5XW20",
)


def load_adult(split: str, data_dir: Path | None = None) -> Dataset:
    """Return the set encoded, (n, 91) in [0, 1].

    Args:
        split: "train" (24,421), "test" (8,140) or "all" (32,561), see `splits.take`.
        data_dir: Folder of adult.data, gzipped or not. By default the user's cache, and last a
            download into that cache.

    Raises:
        DataError: The file is not found and cannot be downloaded, or is not the published one.
    """
    path = _locate(data_dir)
    return take(TABLE.dataset(_read(path), str(path)), split)


def _locate(data_dir: Path | None) -> Path:
    folder = data_dir or cache_folder("adult")
    for path in (folder / FILE, folder / f"{FILE}.gz"):
        if path.is_file():
            return path
    if data_dir:
        raise DataError(f"{data_dir}: holds no {FILE} and no {FILE}.gz")
    target = folder / FILE
    try:
        download([mirror + FILE for mirror in MIRRORS], target, _read)
    except DataError as error:
        raise DataError(
            f"adult: not on this machine, and {error}; get {FILE} from "
            f"{TABLE.source} and give its folder with --data-dir"
        ) from error
    return target


def _read(path: Path) -> str:
    raw = read_bytes(path)
    if hashlib.sha256(raw).hexdigest() != SHA256:
        raise DataError(
            f"{path}: not the published {FILE}, the sha256 of its content differs; remove it and "
            "get it anew"
        )
    return raw.decode("ascii")
