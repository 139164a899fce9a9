"""The site in a real browser, headless and without a network; left out where there is none."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from run_makers import write_run
from site_makers import many_entries, one_board

from leaderboards.entries import find_runs
from leaderboards.site import build
from leaderboards.site.building import write_assets
from leaderboards.site.folder import put
from leaderboards.site.index import index_page

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
RECORDS = Path(__file__).parents[3] / "records"
PHONE = {"width": 360, "height": 740}
SORT = """title => {
  const heads = [...document.querySelectorAll("thead th")];
  const button = heads.find((head) => head.textContent === title).querySelector("button");
  const begin = performance.now();
  button.click();
  void document.querySelector("tbody").offsetHeight;
  return performance.now() - begin;
}"""
BY_SIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser):
    """Open a page by file://; in the end nothing was complained of, nothing left the machine."""
    contexts, said, asked = [], [], []

    def opened(path: Path, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on("request", lambda request: asked.append(request.url))
        page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert asked
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A real run that keeps its adversarial examples, and a board of three made ones."""
    root = tmp_path_factory.mktemp("browser")
    runs = root / "runs"
    _attack(runs)
    for i, (wrong, broken, proved) in enumerate(((4, 2, 2), (0, 1, 9), (1, 6, 1))):
        write_run(
            runs / f"made-{i}",
            set(range(wrong)),
            set(range(wrong, wrong + broken)),
            set(range(10 - proved, 10)),
            name=f"made-{i}",
            run_id=f"made-{i}",
            sha256=f"{i}" * 64,
        )
    build(find_runs([runs]), root / "site", title="Boards")
    return root / "site"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """The site of the project's own records."""
    out = tmp_path_factory.mktemp("zoo") / "site"
    result = build(find_runs([RECORDS]), out, title="Models of this project")
    assert result.refused == ()
    return out


def _attack(runs: Path) -> None:
    from robustbench_c.cli.app import run_app
    from robustbench_c.cli.evaluate import app

    told = "--model fmnist-cnn-pgd --samples 16 --steps 3 --restarts 1 --certify ibp --device cpu"
    asked = [*told.split(), "--no-diagnose", "--save-adversarial", "--out", str(runs)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robustbench_c.evaluation.attacking.contact_sheet", lambda *_: None)
        with pytest.raises(SystemExit) as ended:
            run_app(app, "robust-eval", arguments=asked)
    assert ended.value.code == 0


def names(page, board):
    return [n for n in page.locator(f"{board} tbody tr:not([hidden]) > th").all_inner_texts() if n]


def made(page):
    """The board of the made runs."""
    return f"#{page.locator('section.board', has_text='made-0').get_attribute('id')}"


def test_a_board_is_sorted_by_mouse_and_keyboard(site, visit) -> None:
    page = visit(site / "index.html")
    board = made(page)
    assert names(page, board) == ["made-1", "made-0", "made-2"]
    head = page.locator(f"{board} thead th", has_text="Clean")
    assert head.get_attribute("aria-sort") is None
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert names(page, board) == ["made-1", "made-2", "made-0"]
    page.locator(f"{board} .scroll").focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Clean":
            break
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert names(page, board) == ["made-0", "made-2", "made-1"]
    model = page.locator(f"{board} thead th", has_text="Model")
    model.locator("button").press("Enter")
    assert (model.get_attribute("aria-sort"), head.get_attribute("aria-sort")) == (
        "ascending",
        None,
    )
    assert names(page, board) == ["made-0", "made-1", "made-2"]


def test_boards_are_filtered(site, visit) -> None:
    page = visit(site / "index.html")
    board = made(page)
    shown = page.locator("#shown")
    assert shown.inner_text() == "4 of 4 runs, 2 of 2 boards"
    page.get_by_label("Text").fill("made-2")
    assert shown.inner_text() == "1 of 4 runs, 1 of 2 boards"
    assert names(page, board) == ["made-2"]
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Data").select_option("mini")
    assert names(page, board) == ["made-1", "made-0", "made-2"]
    assert page.locator("section.board:visible").count() == 1
    page.get_by_label("Sparsity").select_option("50")
    assert shown.inner_text() == "0 of 4 runs, 0 of 2 boards"


def test_a_run_page_shows_pictures_and_samples(site, visit) -> None:
    page = visit(site / "index.html")
    page.get_by_role("link", name="fmnist-cnn-pgd").first.click()
    page.wait_for_url("**/runs/fmnist-cnn-pgd*/index.html")
    image = page.locator("img[src$='-adversarial.png']").first
    image.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector(\"img[src$='-adversarial.png']\").complete")
    assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [28, 28]
    rows = page.locator("#explorer tbody tr")
    assert rows.count() == 16
    page.locator("#explore select[data-column=verdict]").select_option(label="broken")
    assert 0 < rows.count() < 16
    assert f"{rows.count()} of 16 samples" in page.locator("#explore output").inner_text()
    page.locator("#explorer th", has_text="Margin").locator("button").click()
    margins = [
        float(t) for t in page.locator("#explorer tbody td.n:nth-of-type(6)").all_inner_texts()
    ]
    assert margins == sorted(margins)
    rows.first.get_by_role("link").click()
    assert "#sample-" in page.url
    page.get_by_role("link", name="Back to the board").click()
    page.locator("section.board:target").wait_for(timeout=5000)


def test_no_page_scrolls_sideways_on_a_phone(site, visit) -> None:
    pages = sorted(site.rglob("index.html"))
    page = visit(pages[0], viewport=PHONE)
    for path in pages:
        page.goto(path.as_uri())
        assert page.evaluate(BY_SIDE) <= 0, path


def test_a_walk_through_the_site_of_the_shipped_models(zoo, visit) -> None:
    page = visit(zoo / "index.html")
    page.get_by_label("Data").select_option("fashion-mnist-mini")
    page.get_by_label("Text").fill("fmnist-cnn-pgd")
    runs = page.locator("section.board tbody tr:not([hidden]) > th a", has_text="fmnist-cnn-pgd")
    assert runs.count() == page.locator("section.board tbody tr:not([hidden])").count() > 0
    page.get_by_role("button", name="Clear").click()
    offered = page.get_by_label("Eps").locator("option").all_inner_texts()
    assert "0.1" in offered
    assert "1" not in offered  # of corruptions it says nothing
    link = page.locator("tbody a[href*='fmnist-cnn-pgd-fashion-mnist-mini-auto-complete']")
    board = page.locator("section.board", has=link)
    head = board.locator("thead th", has_text="Clean")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    place = head.evaluate("head => head.cellIndex + 1")
    cells = board.locator(f"tbody tr > :nth-child({place})")
    clean = cells.evaluate_all("cells => cells.map((cell) => parseFloat(cell.firstChild.data))")
    assert clean == sorted(clean, reverse=True)
    assert len(set(clean)) > 1
    link.click()
    page.wait_for_url("**/runs/fmnist-cnn-pgd*/index.html")
    image = page.locator("img[src$='-adversarial.png']").first
    image.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector(\"img[src$='-adversarial.png']\").complete")
    assert image.is_visible()
    assert image.evaluate("image => image.naturalWidth") == 28
    rows, cut = page.locator("#explorer tbody tr"), page.get_by_text("the rest is on the page")
    assert rows.count() == 50
    page.emulate_media(media="print")
    rows.nth(199).wait_for(state="attached", timeout=5000)
    assert rows.count() == 200
    assert not cut.is_visible()
    page.emulate_media(media="screen")
    rows.nth(50).wait_for(state="detached", timeout=5000)
    assert rows.count() == 50
    kinds = {path.parent.name.split("-linf")[0].rsplit("-", 1)[-1]: path
             for path in sorted(zoo.rglob("runs/*/index.html"))}  # fmt: skip
    phone = visit(zoo / "index.html", viewport=PHONE)
    for path in (zoo / "index.html", *kinds.values()):
        phone.goto(path.as_uri())
        assert phone.evaluate(BY_SIDE) <= 0, path


def test_dark_and_light_follow_the_system_and_the_button(site, visit) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    page = visit(site / "index.html", color_scheme="dark")
    dark = page.evaluate(colour)
    button = page.get_by_role("button", name="Theme")
    button.click()
    light = page.evaluate(colour)
    assert (dark, light) == ("rgb(21, 24, 27)", "rgb(255, 255, 255)")
    page.emulate_media(color_scheme="light", media="print")
    button = page.locator("#theme")
    assert not button.is_visible()
    assert page.evaluate(colour) == light


def test_a_thousand_runs_are_small_and_sorted_at_once(tmp_path, visit) -> None:
    board = one_board(many_entries(tmp_path / "run", 1000))
    pages = {id(row.entry): row.entry.manifest.run_id for row in board.rows}
    data = index_page([board], [], pages, {}, "Many")
    assert len(data) < 2_000_000
    put(tmp_path / "site" / "index.html", data)
    write_assets(tmp_path / "site" / "assets")
    page = visit(tmp_path / "site" / "index.html")
    rows = page.locator("tbody tr:visible")
    assert rows.count() == 100
    took = [_sort(page, title) for title in ("Clean", "Certified", "Model", "Sparsity", "Gap")]
    walls, works = zip(*took, strict=True)
    print(f"{len(data) / 1e6:.2f} MB; sorts in {walls} ms, of which work {works}", file=sys.stderr)
    assert max(works) < 200
    page.get_by_role("button", name="Show all 1000 runs").click()
    assert rows.count() == 1000
    page.get_by_role("button", name="Show the first 100").click()
    page.get_by_label("Text").fill("training-99")
    assert rows.count() == 11
    page.get_by_label("Text").fill("")
    page.emulate_media(media="print")
    assert rows.count() == 1000


def _sort(page, title: str) -> tuple[int, int]:
    """Milliseconds of a sort with its layout, and those in which the page itself was at work."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def worked() -> float:
        told = session.send("Performance.getMetrics")["metrics"]
        return next(each["value"] for each in told if each["name"] == "TaskDuration")

    before = worked()
    wall = page.evaluate(SORT, title)
    return round(wall), round(1000 * (worked() - before))
