"""Slow checks (`make check`): every chapter runs in JupyterLab, in a real browser. Needs Chromium."""

import shutil

import pytest
from lab_and_browser import ROOT, Lab, keep_screenshot, open_notebook, run_all_cells

pytestmark = pytest.mark.slow
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    for chapter in CHAPTERS:
        lab.bring(chapter)
    for kind in ("*.py", "*.csv", "*.png"):  # what chapters import, draw and show
        for beside in (ROOT / "notebooks").glob(kind):
            shutil.copy(beside, lab.folder)
    yield lab
    lab.end()


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_the_chapter_runs_in_a_browser_from_top_to_bottom(lab, browser, chapter):
    page, complaints = open_notebook(lab, browser, chapter.name)
    run_all_cells(lab, page, chapter.name)
    page.keyboard.press("Control+End")
    pictures = page.locator(".jp-OutputArea img")
    pictures.first.wait_for(state="attached", timeout=30_000)
    pictures.last.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    keep_screenshot(page, chapter.stem)
    page.close()
    assert not complaints


def test_the_server_ends_when_asked(tmp_path):
    lab = Lab(tmp_path)
    assert lab.server.poll() is None
    assert lab.end() in (0, -15)
