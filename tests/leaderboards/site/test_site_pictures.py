"""Plots and pictures: what they show, and that nothing in them varies or breaks out."""

from __future__ import annotations

import io
import re
from importlib import resources
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from PIL import Image
from record_makers import a_manifest

from leaderboards.errors import RecordError
from leaderboards.manifest import ThreatInfo
from leaderboards.rates import Rate
from leaderboards.site.bars import sandwich, small_bar
from leaderboards.site.curve import curve_plot
from leaderboards.site.heat_maps import _read
from leaderboards.site.pareto import Point, front, pareto
from leaderboards.site.pictures import SIDE, Example, changed_features, pictures_of
from leaderboards.site.svg import ticks
from leaderboards.summary import Counts

COUNTS = Counts(wrong=10, broken=20, certified=60, undecided=10, error=0, not_run=0)


def parsed(picture):
    return ElementTree.fromstring(str(picture))


def a_point(x: float, y: float, name: str = "m") -> Point:
    return Point(x, y, name, "runs/a/index.html")


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (0, 0.3, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]),
        (71, 73, [71, 71.5, 72, 72.5, 73]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round(low, high, wanted) -> None:
    assert ticks(low, high) == wanted


def test_the_front_is_what_none_beats() -> None:
    points = [a_point(1, 9), a_point(5, 5), a_point(5, 4), a_point(4, 5), a_point(9, 1)]
    assert [(p.x, p.y) for p in front(points)] == [(1, 9), (5, 5), (9, 1)]
    twins = [a_point(5, 5, "a"), a_point(5, 5, "b"), a_point(4, 4)]
    assert [p.name for p in front(twins)] == ["b", "a"]


def test_a_plot_links_its_points_and_shows_names_inert() -> None:
    points = [a_point(1, 9, "<b>&"), a_point(5, 5), a_point(2, 2)]
    plot = pareto(points, "title", "x", "y")
    links = parsed(plot).findall("a")
    assert [link.get("href") for link in links] == ["runs/a/index.html"] * 3
    assert [link.find("circle").get("class") for link in links] == ["best", "point", "best"]
    assert "<b>" not in plot
    assert "&lt;b&gt;&amp;" in plot
    assert plot == pareto(points[::-1], "title", "x", "y")
    assert pareto(points[:1], "title", "x", "y") == ""


def test_of_many_points_the_front_alone_is_linked() -> None:
    points = [a_point(x, 100 - x + (x % 7), f"m{x}") for x in range(80)]
    points += [a_point(x / 10, x / 20, f"n{x}") for x in range(920)]
    plot = pareto(points, "title", "x", "y")
    assert len(plot) < 40_000
    assert 0 < len(parsed(plot).findall("a")) < 90


def test_bars_are_as_wide_as_their_shares() -> None:
    widths = {r.get("class"): float(r.get("width")) for r in parsed(small_bar(COUNTS)).iter("rect")}
    assert widths == {"c": 60, "u": 10, "b": 20, "w": 10}
    marks = [("clean", Rate.of(90, 100)), ("empirical", Rate.of(70, 100)), ("certified", None)]
    words = [t.text for t in parsed(sandwich(COUNTS, marks, {"broken": "bent"})).iter("text")]
    assert {"clean 90.00%", "empirical 70.00%", "certified", "bent"} <= set(words)
    assert "certified 0.00%" not in words


def test_the_curve_shades_what_is_not_known() -> None:
    curve = pd.DataFrame(
        {
            "eps": [0.0, 0.05, 0.1, 0.2],
            "certified": pd.array([8, 8, 5, 0], dtype="Int64"),
            "empirical": [9, 9, 7, 2],
            "samples": [10] * 4,
        }
    )
    threat = ThreatInfo(norm="linf", eps=0.1, sha256="b" * 64)
    kinds = [path.get("class") for path in parsed(curve_plot(curve, threat)).iter("path")]
    assert {"c area", "u area", "line c", "line b", "eps"} <= set(kinds)
    unproved = curve.assign(certified=pd.array([None] * 4, dtype="Int64"))
    kinds = [path.get("class") for path in parsed(curve_plot(unproved, threat)).iter("path")]
    assert "c area" not in kinds
    assert "line b" in kinds


def an_example(shape: tuple[int, ...]) -> Example:
    clean = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    return Example(3, "pgd", clean, (clean + 0.1).clip(0, 1).astype(np.float32))


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 6, 4), (3, 600, 300)])
def test_pictures_are_png_of_bounded_size(shape) -> None:
    files = pictures_of(an_example(shape), a_manifest().data)
    assert set(files) == {"clean", "adversarial", "difference"}
    for data in files.values():
        image = Image.open(io.BytesIO(data))
        assert image.format == "PNG"
        assert max(image.size) == min(SIDE, max(shape))
        assert image.info == {}
    assert files == pictures_of(an_example(shape), a_manifest().data)


def test_grey_values_are_those_of_the_box() -> None:
    example = an_example((1, 1, 3))
    files = pictures_of(example, a_manifest().data)
    assert np.asarray(Image.open(io.BytesIO(files["clean"]))).tolist() == [[0, 128, 255]]
    lighter = np.asarray(Image.open(io.BytesIO(files["difference"]))).tolist()[0]
    assert lighter[0] == [178, 24, 43]
    assert lighter[2] == [255, 255, 255]


def test_features_that_changed_most_come_first() -> None:
    clean = np.zeros(12, np.float32)
    changed = clean.copy()
    changed[[4, 7]] = (0.25, -0.5)
    assert changed_features(Example(0, "pgd", clean, changed)) == [(7, 0, -0.5), (4, 0, 0.25)]


def test_explanations_of_another_form_are_refused() -> None:
    ids = np.array([0, 1], np.int64)
    good = np.zeros((2, 1, 2, 2), np.float32)
    known = safetensors.numpy.save({"ids": ids, "clean": good, "bent": good})
    assert set(_read(known, (1, 2, 2))) == {"ids", "clean", "bent"}
    for bad in (
        {"clean": good},
        {"ids": ids},
        {"ids": ids, "clean": good[:1]},
        {"ids": ids, "clean": good.astype(np.float64)},
        {"ids": ids, "clean": good * np.nan},
        {"ids": ids, "clean": good, "more": good},
    ):
        with pytest.raises(RecordError, match=r"explanations\.safetensors"):
            _read(safetensors.numpy.save(bad), (1, 2, 2))
    with pytest.raises(RecordError, match="damaged"):
        _read(b"nothing", (1, 2, 2))


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("theme", [1, 2])
def test_colours_have_the_contrast_of_wcag_aa(theme) -> None:
    css = resources.files("leaderboards.site").joinpath("assets/site.css").read_text()
    found = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", css)
    light = {told[0]: _luminance(told[theme]) for told in found}

    def contrast(first: str, second: str) -> float:
        low, high = sorted((light[first], light[second]))
        return (high + 0.05) / (low + 0.05)

    texts = ["text", "soft", "link", "warn"]
    pairs = [(words, back) for words in texts for back in ("back", "raised")]
    pairs += [("warn", "warn-back"), ("text", "warn-back"), ("on-undecided", "undecided")]
    pairs += [("on", verdict) for verdict in ("certified", "broken", "wrong", "error")]
    assert {pair: contrast(*pair) for pair in pairs if contrast(*pair) < 4.5} == {}
    assert contrast("edge", "back") >= 3
