"""Titles stay inside of the picture, above what it shows."""

from __future__ import annotations

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from robustbench_c.data import from_tensors
from robustbench_c.evaluation import corrupted_pictures, pictures, titles
from robustbench_c.evaluation.corrupting import corruptions

LONG = "fmnist-cnn-sparsevlr-99 on fashion-mnist-mini, linf eps 0.1 $x"


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, as they are then."""
    figures: list[Figure] = []

    def save(self: Figure, *_: object, **__: object) -> None:
        figures.append(self)

    monkeypatch.setattr(Figure, "savefig", save)
    return figures


def check_inside(figure: Figure) -> None:
    FigureCanvasAgg(figure).draw()
    words, width = figure._suptitle.get_window_extent(), figure.bbox.width
    assert words.x0 >= 0
    assert words.x1 <= width
    for axes in figure.axes:
        assert axes.get_window_extent().y1 <= words.y0
        assert axes.get_window_extent().height > 20


@pytest.mark.parametrize("count", [1, 2, 6])
def test_contact_sheet(tmp_path, drawn, count):
    x, names = torch.rand(count, 1, 5, 5), ["ankle boot"] * count
    pictures.contact_sheet(tmp_path, x, 1 - x, names, names, [*range(count)], (0.0, 1.0), LONG)
    check_inside(drawn[0])


def test_corruption_pictures(tmp_path, drawn):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)).eval()
    x = torch.rand(6, 1, 8, 8)
    data = from_tensors(x, model(x).argmax(1), lower=torch.tensor(0.0), upper=torch.tensor(1.0))
    run = corruptions(model, data, ("fog",), (1,), out=tmp_path)
    corrupted_pictures.draw_accuracy(run)
    corrupted_pictures.draw_sheet(run, data)
    for figure in drawn[::2]:
        check_inside(figure)


def test_a_title_keeps_its_words(drawn):
    figure = Figure(figsize=(3, 2))
    titles.entitle(figure, "one two-three four " * 5, 10)
    assert "two-three" in figure._suptitle.get_text()
    assert "two-\n" not in figure._suptitle.get_text()
