"""The certification report: one content, three formats, inert, the same bytes every time."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hostile_records import a_record, diagnosed, removed, set_in
from record_makers import a_frame, a_manifest, a_row, all_signs
from test_explained_records import good as explained

from leaderboards.diagnostics import Diagnostics, write_diagnostics
from leaderboards.errors import RecordError
from leaderboards.manifest import StepInfo
from leaderboards.report.blocks import Alarm, Facts, Figures, Points, Report, Table, Text
from leaderboards.report.build import build
from leaderboards.report.slices import read_slices
from leaderboards.report.write import report_bytes
from leaderboards.store import RunStore

SCRIPT = "<script>alert(1)</script>"
HOSTILE = f"{SCRIPT}[x](javascript:alert(1)) ![i](https://evil.example/a.png) @someone | `x`"
ROBUST = ("70.00%", "34.75% to 93.33%")
CERTIFIED = ("50.00%", "18.71% to 81.29%")


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(data.decode())

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return diagnosed(a_record(tmp_path_factory.mktemp("report") / "run")).folder


@pytest.fixture(scope="module")
def report(run: Path) -> Report:
    return build([run])


def texts(report: Report) -> list[str]:
    """Every piece of text of a report."""
    found: list[str] = []
    for section in report.sections:
        found.append(section.title)
        for block in section.blocks:
            match block:
                case Text(text) | Alarm(text):
                    found.append(text)
                case Points(sentences):
                    found += sentences
                case Table():
                    found += [cell for row in (block.header, *block.rows) for cell in row]
                case Facts(pairs):
                    found += [text for pair in pairs for text in pair]
                case Figures(shown):
                    found += [caption for caption, _ in shown]
    return [text for text in found if text]


def section(report: Report, title: str) -> str:
    return " ".join(texts(Report("", "", report.created, "", tuple(
        each for each in report.sections if title in each.title), "")))  # fmt: skip


def test_the_first_page_says_it_in_plain_words(report: Report) -> None:
    told = section(report, "Summary")
    for part in (
        "tested on 10 samples of mini (test, 3 classes)",
        "change every input value by at most 0.1",
        "9 of 10 samples are classified rightly: 90.00%",
        "2 of 10 were broken: the record says that for each an example was found and checked "
        "again; examples are stored with it",
        "For 5 it is proved",
        "Of 2 neither is known",
        f"at least {CERTIFIED[0]} and at most {ROBUST[0]}",
        CERTIFIED[1],
        ROBUST[1],
        "other attackers",
    ):
        assert part in told
    assert not any(isinstance(b, Alarm) for b in report.sections[0].blocks)


def test_every_section_is_there(report: Report) -> None:
    titles = [re.sub(r"^[\d.]+ ", "", each.title) for each in report.sections]
    assert titles == [
        "Summary", "Details", "Scope", "Model", "Data", "Threat model", "Method",
        "What the verdicts rest on", "Results", "Groups of samples", "Steps and cost",
        "Diagnostics", "Sparsity and size", "Failures", "Limits", "How to check and repeat it",
    ]  # fmt: skip
    manifest = a_manifest()
    assert manifest.model.sha256 in section(report, "Model")
    assert manifest.data.sha256 in section(report, "Data")
    assert "max_i |d_i| <= 0.1" in section(report, "Threat model")
    assert "IEEE 754" in section(report, "What the verdicts rest on")
    assert "--prove" in report_bytes(report, ".md").decode()


def test_html_and_markdown_say_all_of_it(report: Report) -> None:
    page = Page(report_bytes(report, ".html")).text
    plain = report_bytes(report, ".md").decode()
    plain = re.sub(r"&#(\d+);", lambda m: chr(int(m[1])), plain)
    plain = re.sub(r"\\(.)", r"\1", plain).replace("&lt;", "<").replace("&gt;", ">")
    plain = " ".join(plain.replace("&amp;", "&").split())
    for text in texts(report):
        assert " ".join(text.split()) in page
        assert " ".join(text.split()) in plain


def test_failures_are_shown(report: Report) -> None:
    page = Page(report_bytes(report, ".html"))
    pictures = [a["src"] or "" for tag, a in page.tags if tag == "img"]
    assert len(pictures) == 6  # clean, adversarial and difference of two samples
    assert all(src.startswith("data:image/png;base64,") for src in pictures)
    assert "sample 1: shoe, seen as bag (pgd)" in page.text


def test_without_stored_examples_it_says_so(tmp_path: Path) -> None:
    run = a_record(tmp_path / "run").folder
    removed("adversarial/pgd/*")(run)
    (run / "adversarial" / "pgd").rmdir()
    (run / "adversarial").rmdir()
    report = build([run])
    assert "did not keep its adversarial examples" in section(report, "Failures")
    assert "not stored, so nobody can replay them" in section(report, "Summary")


def test_what_cannot_be_seen_is_written_out_in_commands(tmp_path: Path) -> None:
    name = "it's \\ \u202egpj.exe\n"
    model = a_manifest().model.model_copy(update={"name": name})
    report = build([a_record(tmp_path / "run", model=model).folder])
    for suffix in (".md", ".html"):
        assert "\u202e" not in report_bytes(report, suffix).decode()
    lines = report_bytes(report, ".md").decode().splitlines()
    (command,) = [line.strip() for line in lines if line.startswith("    robust-eval")]
    word = command.split(" --data")[0].removeprefix("robust-eval --model ")
    assert word == r"$'it\'s \\ \U0000202egpj.exe\U0000000a'"
    bash = ["bash", "-c", f"printf %s {word}"]
    said = subprocess.run(bash, capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert said.stdout.decode() == name


def test_a_damaged_example_is_said_and_not_shown(tmp_path: Path) -> None:
    run = a_record(tmp_path / "run").folder
    (path,) = run.glob("adversarial/pgd/*")
    path.write_bytes(b"no")
    report = build([run])
    assert "are not shown" in section(report, "Failures")
    assert b"<img" not in report_bytes(report, ".html")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Of a record whose every free text is an attack on who shows it."""
    made = a_manifest()
    model = made.model.model_copy(
        update={"name": HOSTILE, "architecture": HOSTILE, "card": {HOSTILE: HOSTILE}}
    )
    data = made.data.model_copy(
        update={"name": HOSTILE, "classes": (HOSTILE, "javascript:alert(1)", "\u202ebag")}
    )
    folder = tmp_path_factory.mktemp("hostile") / "run"
    return build([a_record(folder, model=model, data=data, notices=(HOSTILE,)).folder])


def test_markup_in_a_record_is_inert_in_html(hostile: Report) -> None:
    page = Page(report_bytes(hostile, ".html"))
    assert not {"script", "iframe", "object", "embed", "form", "base"} & {t for t, _ in page.tags}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("href", "src"):
            link = attributes.get(name) or "#"
            assert link.startswith(("#", "data:image/png;base64,")), link
    assert SCRIPT in page.text  # shown as what it is
    policy = [a for t, a in page.tags if t == "meta" and "content" in a]
    assert any("default-src 'none'" in (a["content"] or "") for a in policy)


def test_markup_in_a_record_is_inert_in_markdown(hostile: Report) -> None:
    lines = report_bytes(hostile, ".md").decode().split("\n")
    text = "\n".join(line for line in lines if not line.startswith("    "))  # no code blocks
    assert "<" not in text
    assert not re.search(r"(?<!\\)\]\(", text)
    assert "://" not in text
    assert "@" not in text
    for line in text.splitlines():  # a cell of the record ends no cell of the table
        if line.startswith("| name |"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 3


@pytest.mark.parametrize("suffix", [".html", ".md"])
def test_the_same_bytes_every_time(run: Path, report: Report, suffix: str) -> None:
    assert report_bytes(build([run]), suffix) == report_bytes(report, suffix)


def test_pdf(run: Path, report: Report, hostile: Report) -> None:
    pytest.importorskip("fpdf")
    data = report_bytes(report, ".pdf")
    assert data.startswith(b"%PDF-")
    assert report_bytes(build([run]), ".pdf") == data
    assert b"D:20260102030405" in data  # the run's date, and no other
    assert data.count(b"/Subtype /Image") >= 3  # pictures of failures, each once
    pages = len(re.findall(rb"/Type /Page\b", data))
    assert 4 <= pages <= 9
    shown = report_bytes(hostile, ".pdf")
    assert b"/URI" not in shown
    assert b"/JavaScript" not in shown


def test_pdf_without_fpdf2_is_one_line(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leaderboards.report.pdf.find_spec", lambda name: None)
    with pytest.raises(RecordError, match=r"robustbench-c\[pdf\]"):
        report_bytes(report, ".pdf")


@pytest.mark.parametrize(
    ("changes", "word"), [({"reproducible": False}, "NOT REPRODUCIBLE"), ({}, "NOT COMPLETE")]
)
def test_the_first_page_warns(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    run = a_record(tmp_path / "run", **changes).folder
    if not changes:
        removed("shards/crown/*")(run)
        (run / "summary.json").unlink()
    first = build([run]).sections[0]
    assert isinstance(first.blocks[0], Alarm)
    assert first.blocks[0].text.startswith(word)


def test_a_run_that_lies_has_no_report(tmp_path: Path) -> None:
    run = a_record(tmp_path / "run").folder
    set_in("summary.json", "counts.certified", 9)(run)
    with pytest.raises(RecordError, match="counts is not what the shards give"):
        build([run])


def test_several_runs_of_one_model(run: Path, tmp_path: Path) -> None:
    other = a_record(tmp_path / "other", run_id="run-2").folder
    report = build([run, other])
    assert [s.title for s in report.sections if s.level == 1] == [
        "Summary 1 of 2: predictions",
        "Summary 2 of 2: predictions",
        "Details 1 of 2: predictions",
        "Details 2 of 2: predictions",
    ]
    anchors = [each.anchor for each in report.sections]
    assert len(set(anchors)) == len(anchors)
    model = a_manifest().model.model_copy(update={"sha256": "c" * 64})
    stranger = a_record(tmp_path / "stranger", model=model).folder
    with pytest.raises(RecordError, match="of different models"):
        build([run, stranger])
    shutil.copytree(run, tmp_path / "copy")
    for again in (run, run / ".." / run.name, tmp_path / "copy"):
        with pytest.raises(RecordError, match="are the same run: give it once"):
            build([run, other, again])


def slices_file(folder: Path, *lines: str, data: bytes | None = None) -> Path:
    path = folder / "slices.csv"
    path.write_bytes(data or ("\n".join(("sample_id,slice", *lines)) + "\n").encode())
    return path


def test_slices_of_the_user(run: Path, tmp_path: Path) -> None:
    lines = [f"{i},{'dark' if i < 4 else HOSTILE if i < 6 else 'a, b'}" for i in range(4)]
    path = slices_file(tmp_path, *lines, '4,"a, b"', '5,"a, b"')
    groups = next(s for s in build([run], path).sections if s.title.endswith("Groups of samples"))
    table = [block for block in groups.blocks if isinstance(block, Table)][-1]
    assert table.header[0] == "slice"
    assert [row[:3] for row in table.rows] == [("a, b", "2", "100.00%"), ("dark", "4", "75.00%")]
    assert table.rows[1][5] != table.rows[1][3]  # robust: one of three is left


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (("1,a", "1,b"), "line 3: sample 1 is there twice"),
        (("x,a",), "'x' is not a sample id"),
        (("-1,a",), "is not a sample id"),
        (("1",), "1 cells"),
        (("1,a,b",), "3 cells"),
        (("1, ",), "without a name"),
        (('1,"a',), "line 2"),
        (("99,a",), "sample 99 is not one of"),
        ((), "no sample in it"),
        (tuple(f"{i},s{i}" for i in range(201)), "201 slices; the limit is 200"),
    ],
)
def test_bad_slices_are_one_line(
    run: Path, tmp_path: Path, lines: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(RecordError, match=re.escape(problem)):
        build([run], slices_file(tmp_path, *lines))


def test_slices_of_another_form(tmp_path: Path) -> None:
    for data in (b"id,group\n1,a\n", b"", b"\n"):
        with pytest.raises(RecordError, match="first line"):
            read_slices(slices_file(tmp_path, data=data or b"\n"))
    with pytest.raises(RecordError, match="not UTF-8"):
        read_slices(slices_file(tmp_path, data=b"sample_id,slice\n1,\xff\n"))
    with pytest.raises(RecordError, match="is missing"):
        read_slices(tmp_path / "none.csv")


def test_a_smoothed_classifier_is_reported_as_one(tmp_path: Path) -> None:
    steps = {"sigma": 0.25, "n0": 10, "n": 100, "alpha": 0.001}
    step = StepInfo(name="smoothing", kind="certificate", parameters=steps)
    made = a_manifest((step,))
    threat = made.protocol.threat.model_copy(update={"norm": "l2", "eps": 0.0})
    protocol = made.protocol.model_copy(update={"threat": threat})
    model = made.model.model_copy(update={"name": "smoothed cnn", "card": {"base_name": "cnn"}})
    changes = {"protocol": protocol, "protocol_sha256": protocol.sha256, "model": model}
    store = RunStore.create(tmp_path / "run", made.model_copy(update=changes))
    store.write_shard("clean", a_frame(*(a_row(i) for i in range(10))))
    row: dict[str, Any] = {"radius": 0.2, "votes": 99, "forwards": 100, "bound": None}
    proved = [a_row(i, "certified", method="cohen", **row) for i in range(9)]
    left = a_row(9, **row | {"radius": None, "votes": 50})
    store.write_shard("smoothing", a_frame(*proved, left))
    store.write_summary()
    report = build([store.folder])
    told = section(report, "Summary")
    assert "For 9 a radius beyond 0 is proved, each with probability 0.999" in told
    assert "another function than the model itself" in section(report, "What the verdicts rest on")
    commands = report_bytes(report, ".md").decode()
    assert "robust-smooth --model cnn --data mini" in commands
    assert "--smooth 0.25 --smooth-n0 10 --smooth-n 100 --smooth-alpha 0.001" in commands


def test_explanations_are_reported_with_their_maps(tmp_path: Path) -> None:
    store = explained(tmp_path / "run")
    store.write_summary()
    folder = store.folder
    clean = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    held = {"ids": np.array([0]), "clean": clean, "bent": clean + 1, "lower": clean, "upper": clean}
    safetensors.numpy.save_file(held, folder / "explanations.safetensors")
    report = build([folder])
    told = section(report, "Summary")
    assert "asked to explain its predictions on 4 samples" in told
    assert "bent the explanations of 1 of 4 samples: 25.00%" in told
    assert "bent: a legal point" in section(report, "What the verdicts rest on")
    assert "attack found" in section(report, "Explanation certificates")
    page = Page(report_bytes(report, ".html"))
    titles = [a["alt"] for tag, a in page.tags if tag == "img"]
    assert titles == ["clean", "worst found", "box width"]


def test_a_run_whose_attacks_failed_says_so_first(tmp_path: Path) -> None:
    store = a_record(tmp_path / "run")
    held = tuple(range(1, 10))
    found = Diagnostics(
        identity=store.manifest.identity(), looked_at=held,
        measured=all_signs(9, zero_gradient=held), forwards=1, backwards=1, seconds=0.5,
    )  # fmt: skip
    write_diagnostics(store, found)
    store.write_summary()
    report = build([store.folder])
    first = report.sections[0].blocks[0]
    assert isinstance(first, Alarm)
    assert first.text.startswith("UNRELIABLE")
    assert "zero-gradient" in first.text
    assert "Red flags: zero-gradient" in section(report, "Diagnostics")


def test_a_run_of_which_nobody_looked_says_so_in_a_box(tmp_path: Path) -> None:
    first = build([a_record(tmp_path / "run").folder]).sections[0]
    assert isinstance(first.blocks[0], Alarm)
    assert "Nobody looked whether its attacks failed" in first.blocks[0].text
