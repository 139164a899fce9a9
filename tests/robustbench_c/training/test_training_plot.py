"""The curves: two whole files, the same bytes for the same rows, one row or many."""

from __future__ import annotations

from dataclasses import replace

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from robustbench_c.training.log import EpochRow
from robustbench_c.training.plot import draw


def row(epoch: int, robust: float | None) -> EpochRow:
    return EpochRow(epoch, 1.0 / epoch, 0.9, 0.88, robust, None, 0.1, 1.0, 2.0, 50.0)


def test_curves_name_what_they_show(tmp_path):
    rows = [row(1, None), row(2, 0.523)]
    draw(tmp_path, rows, "my-model")
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "training.svg").read_text()
    for text in (
        "my-model: 88.0% clean, 52.3% under attack on held-out samples after epoch 2",
        "epoch",
        "loss",
        "accuracy",
        "held-out samples, under attack",
    ):
        assert text in svg, text
    draw(tmp_path, rows, "my-model")
    assert (tmp_path / "training.svg").read_text() == svg


def test_a_sparse_training_says_how_sparse_it_is(tmp_path):
    draw(tmp_path, [replace(row(1, None), sparsity=0.9904)], "mine")
    told = "mine: 88.0% clean on held-out samples after epoch 1, 99.0% sparse"
    assert told in (tmp_path / "training.svg").read_text()


def test_no_robust_curve_without_an_attack(tmp_path):
    draw(tmp_path, [row(1, None)], "my-model")
    assert "under attack" not in (tmp_path / "training.svg").read_text()


def test_the_legend_covers_no_point(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    draw(tmp_path, [row(1, 0.02), row(2, 0.01)], "my-model")
    FigureCanvasAgg(drawn[0]).draw()
    (legend,) = drawn[0].legends
    assert [axes.get_legend() for axes in drawn[0].axes] == [None, None]
    for axes in drawn[0].axes:
        assert not legend.get_window_extent().overlaps(axes.get_window_extent())
