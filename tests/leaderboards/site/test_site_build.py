"""The site on disk: whole or absent, the same bytes, nothing of a stranger that is not inert."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser

import pytest
from hostile_records import a_record
from run_makers import write_run

from leaderboards.entries import find_runs
from leaderboards.errors import RecordError
from leaderboards.site import build
from leaderboards.site.folder import MARKER

HOSTILE = "<script>alert(1)</script>\" onload='x' \u202egpj.exe javascript:alert(1) " + "x" * 300
VOID = {"meta", "link", "br", "img", "input"}


def write_runs(root) -> None:
    """Two boards of three runs, one of them stored twice under one id, and a refused one."""
    a_record(root / "stored")
    write_run(root / "first", {0}, {1}, {2, 3}, name="first", run_id="a", sha256="1" * 64)
    write_run(root / "second", set(), {1}, {2}, name=HOSTILE[:500], run_id="a", sha256="2" * 64)
    write_run(root / "long", samples=20, name="alone", run_id="c", sha256="3" * 64)
    write_run(root / "spoilt", samples=3, name="spoilt", run_id="d")
    (root / "spoilt" / "summary.json").write_text("{}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    write_runs(root)
    return root


@pytest.fixture(scope="module")
def site(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "site"
    result = build(find_runs([runs]), out, title="A <b>title</b>")
    assert (result.runs, len(result.boards), len(result.refused)) == (4, 2, 1)
    return out


def held(folder) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def pages(site):
    return sorted(site.rglob("*.html"))


class Page(HTMLParser):
    """Elements of a page; complains where tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def test_the_same_records_give_the_same_bytes(runs, site, tmp_path, monkeypatch) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(runs, moved)
    monkeypatch.chdir(tmp_path)
    folders = find_runs([moved])[::-1]
    folders = [folder.relative_to(tmp_path) for folder in folders]
    build(folders, tmp_path / "again", title="A <b>title</b>")
    assert held(tmp_path / "again") == held(site)
    assert not any(str(runs).encode() in data for data in held(site).values())


def test_pages_are_whole_and_lead_nowhere_else(site) -> None:
    assert len(pages(site)) == 5
    for page in pages(site):
        found = Page(page.read_text())
        ids = [told["id"] for _, told in found.elements if "id" in told]
        assert len(ids) == len(set(ids))
        for tag, told in found.elements:
            assert "style" not in told
            assert not any(name.startswith("on") for name in told)
            assert tag != "script" or told["src"].endswith(".js")
            for name in ("href", "src"):
                where = told.get(name)
                if where is None or where == "data:,":
                    continue
                file, _, place = where.partition("#")
                target = (page.parent / file) if file else page
                assert target.resolve().is_relative_to(site.resolve()), where
                assert target.is_file(), where
                assert not place or f'id="{place}"' in target.read_text(), where


def test_what_strangers_write_is_inert(site) -> None:
    for page in pages(site):
        text = page.read_text()
        assert "Content-Security-Policy" in text
        assert "<script>alert" not in text
        assert "\u202e" not in text
        assert len(re.findall("<script", text)) == text.count("<script src=")
        for value in re.findall(r'(?:href|src)="([^"]*)"', text):
            assert not value.startswith("javascript:")
    index = (site / "index.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in index
    assert "A &lt;b&gt;title&lt;/b&gt;" in index
    assert "x" * 301 not in index


def test_two_runs_of_one_id_have_pages_of_their_own(site) -> None:
    names = {path.name for path in (site / "runs").iterdir()}
    assert names == {"a", "a-2", "c", "run-1"}
    assert "first" in (site / "runs" / "a" / "index.html").read_text()


def test_refused_runs_are_named_with_their_problem(site) -> None:
    index = (site / "index.html").read_text()
    assert '<th scope="row"><bdi>spoilt</bdi></th>' in index
    assert "summary.json" in index


def test_a_board_says_where_no_ranks_are_settled(site) -> None:
    captions = re.findall("<caption[^>]*>([^<]*)</caption>", (site / "index.html").read_text())
    assert [c.endswith("; no two models differ beyond chance") for c in captions] == [True, False]


def test_a_page_says_what_was_found(site) -> None:
    text = (site / "runs" / "run-1" / "index.html").read_text()
    for said in (
        "Of 10 samples, 9 are classified rightly as they are.",
        "change every input value by at most 0.1 breaks 2: the record says that for each an "
        "example was found and checked again; examples are stored with it, and can be replayed.",
        "from the manifest. It is the same run",
        "robust-runs verify RUN",
        "For 5 it is proved that no such attacker can succeed; of 2 neither is known.",
        "at least 50.00% and at most 70.00%.",
        "certified 50.00%",
        '<bdi>shoe</bdi></th><td class="n">10</td>',
        "robust-eval --model cnn --data mini --split test --norm linf --eps 0.1",
    ):
        assert said in text, said
    samples = (site / "runs" / "run-1" / "samples.js").read_text()
    assert '"values":[null,0.0625,0.0625,null' in samples
    assert '"words":["broken","certified","undecided","wrong"]' in samples
    assert '"title":"Distance of the example"' in samples
    assert '"pictures":{"1":"sample-1","2":"sample-2"}' in samples


def test_a_page_says_where_no_examples_are_stored(runs, tmp_path) -> None:
    shutil.copytree(runs / "stored", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "adversarial")
    build([tmp_path / "run"], tmp_path / "site", title="t")
    text = (tmp_path / "site" / "runs" / "run-1" / "index.html").read_text()
    assert "the examples are not stored, so nobody can replay them" in text
    assert "can be replayed" not in text


def test_examples_that_are_damaged_are_not_shown(runs, tmp_path) -> None:
    shutil.copytree(runs / "stored", tmp_path / "run")
    (file,) = (tmp_path / "run").rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-4])
    result = build([tmp_path / "run"], tmp_path / "site", title="t")
    if not result.runs:  # what is refused has no page
        return
    text = (tmp_path / "site" / "runs" / "run-1" / "index.html").read_text()
    assert "The stored adversarial examples are not shown" in text
    assert not list((tmp_path / "site").rglob("*.png"))


def test_what_is_no_site_is_not_replaced(runs, tmp_path) -> None:
    out = tmp_path / "site"
    out.mkdir()
    build([runs / "long"], out, title="t")  # an empty folder may be taken
    (out / "old").write_text("of the last one")
    build([runs / "first"], out, title="t")
    assert not (out / "old").exists()
    (out / MARKER).unlink()
    before = held(out)
    with pytest.raises(RecordError, match="no site of robust-leaderboard"):
        build([runs / "long"], out, title="t")
    assert held(out) == before
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(RecordError, match="no folder"):
        build([runs / "long"], file, title="t")


def test_a_failure_leaves_the_old_site_and_nothing_else(runs, tmp_path, monkeypatch) -> None:
    out = tmp_path / "site"
    build([runs / "first"], out, title="t")
    before = held(out)

    def fails(*_: object) -> None:
        raise RecordError("full")

    monkeypatch.setattr("leaderboards.site.building.write_page", fails)
    with pytest.raises(RecordError, match="full"):
        build([runs / "long"], out, title="t")
    assert held(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
