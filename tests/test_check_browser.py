"""Slow checks (`make check`): every chapter runs in JupyterLab, in a real browser. Needs Chromium."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """(address, folder) of a JupyterLab on a copy of the notebooks, outputs cleared; ended afterwards."""
    folder = tmp_path_factory.mktemp("lab")
    for path in CHAPTERS:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, folder / path.name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root"]
    command += [f"--IdentityProvider.token={token}", "--ServerApp.port_retries=0", f"--notebook-dir={folder}"]
    log = (folder / "server.log").open("w")
    env = os.environ | {"JUPYTER_CONFIG_DIR": str(folder / ".config"), "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings")}
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env)
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{address}/api/status?token={token}", timeout=5)
            break
        except OSError:
            assert server.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.5)
    yield f"{address}/lab/tree/{{}}?token={token}&reset", folder
    server.terminate()
    assert server.wait(timeout=60) is not None


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        reason = "no Chromium on this machine: the browser check was not run (install Debian's package chromium)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_the_chapter_runs_in_a_browser_from_top_to_bottom(lab, browser, chapter):
    address, folder = lab
    page = browser.new_page(viewport={"width": 1200, "height": 1600})
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address.format(chapter.name))
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    page.wait_for_selector("[data-status='idle']", timeout=120_000)
    page.get_by_text("Run", exact=True).first.click()
    page.get_by_text("Run All Cells", exact=True).click()

    n_cells = sum(cell.cell_type == "code" for cell in nbformat.read(chapter, as_version=4).cells)
    deadline, cells = time.monotonic() + 300, []
    while time.monotonic() < deadline:
        page.wait_for_timeout(3000)
        page.keyboard.press("Control+s")
        page.wait_for_timeout(500)
        saved = nbformat.read(folder / chapter.name, as_version=4)
        cells = [cell for cell in saved.cells if cell.cell_type == "code"]
        errors = [output for cell in cells for output in cell.outputs if output.output_type == "error"]
        assert not errors, "\n".join(errors[0].traceback)
        if all(cell.execution_count for cell in cells):
            break
    assert [cell.execution_count for cell in cells] == list(range(1, n_cells + 1))
    pictures = page.locator(".jp-OutputArea img")
    pictures.first.wait_for(state="attached", timeout=30_000)
    pictures.last.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    keep = ROOT / "outputs" / "browser"
    keep.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=keep / f"{chapter.stem}.png")
    page.close()
    assert not complaints
