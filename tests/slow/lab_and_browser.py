"""A JupyterLab of one's own and a real browser in front of it, for the slow checks. Needs Chromium."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]


class Lab:
    """A running JupyterLab whose root is `folder`."""

    def __init__(self, folder: Path):
        self.folder, self.token = folder, secrets.token_hex(16)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"http://127.0.0.1:{probe.getsockname()[1]}"
        command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1", "--allow-root"]
        command += [f"--port={self.address.rpartition(':')[2]}", "--ServerApp.port_retries=0", f"--notebook-dir={folder}"]
        command += [f"--IdentityProvider.token={self.token}", "--LabApp.expose_app_in_browser=True"]
        env = os.environ | {"JUPYTER_CONFIG_DIR": str(folder / ".config"), "JUPYTERLAB_SETTINGS_DIR": str(folder / ".settings")}
        env |= {"JUPYTERLAB_WORKSPACES_DIR": str(folder / ".workspaces")}
        news = folder / ".settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
        news.parent.mkdir(parents=True)
        news.write_text('{"fetchNews": "false", "checkForUpdates": false}')  # else it asks, over the page
        self.log = folder / "server.log"
        self.server = subprocess.Popen(command, stdout=self.log.open("w"), stderr=subprocess.STDOUT, env=env)
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{self.address}/api/status?token={self.token}", timeout=5)
                return
            except OSError:
                assert self.server.poll() is None, self.log.read_text()
                time.sleep(0.5)
        raise TimeoutError(f"JupyterLab does not answer:\n{self.log.read_text()}")

    def end(self) -> int:
        """Ask it to end; its exit code."""
        self.server.terminate()
        return self.server.wait(timeout=60)

    def bring(self, notebook: Path) -> None:
        """Copy a notebook here, without its outputs."""
        content = nbformat.read(notebook, as_version=4)
        for cell in content.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(content, self.folder / notebook.name)


@contextmanager
def chromium():
    """Debian's Chromium through Playwright. Without one: skipped, or failed where CI=true since there it must not skip."""
    if CHROMIUM is None:
        reason = "no Chromium on this machine: the browser check was not run (install Debian's package chromium)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


def open_notebook(lab: Lab, browser, name: str, height: int = 1600):
    """(page, complaints) of a notebook in a workspace of its own, its kernel ready. complaints: the page's errors so far."""
    page = browser.new_page(viewport={"width": 1280, "height": height})
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.goto(f"{lab.address}/lab/workspaces/{Path(name).stem}/tree/{name}?token={lab.token}")
    page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.content?.widgets?.length", timeout=180_000)
    page.evaluate("""async () => {
        const panel = window.jupyterapp.shell.currentWidget;
        await window.jupyterapp.restored; await panel.context.ready; await panel.sessionContext.ready;
        await panel.sessionContext.session.kernel.info;
    }""")
    return page, complaints


def run_all_cells(lab: Lab, page, name: str, limit_s: int = 300) -> nbformat.NotebookNode:
    """Run every cell through JupyterLab's own command and save; the saved notebook. Raises on an error or after `limit_s`."""
    page.evaluate(
        """async limit => {
        const panel = window.jupyterapp.shell.currentWidget;
        const late = new Promise((_, fail) => setTimeout(() => fail(new Error(`not run within ${limit} s`)), 1000 * limit));
        await Promise.race([window.jupyterapp.commands.execute('notebook:run-all-cells'), late]);
        await panel.context.save();
    }""",
        limit_s,
    )
    saved = nbformat.read(lab.folder / name, as_version=4)
    cells = [cell for cell in saved.cells if cell.cell_type == "code"]
    errors = [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert not errors, "\n".join(errors[0].traceback)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    return saved


def keep_screenshot(page, name: str) -> None:
    """Into outputs/browser/, to be looked at."""
    folder = ROOT / "outputs" / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png")
