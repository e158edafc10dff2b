"""Sphinx's settings for the site. `build.py` copies this file, `static/` and `templates/` into the folder that Sphinx reads."""

import json
import subprocess
from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

import vae_helpers

KATEX = """const [where, display] = process.argv.slice(1);
const formula = require("fs").readFileSync(0, "utf8");
process.stdout.write(require(where).renderToString(formula, {displayMode: display === "block", throwOnError: true}));"""

project, author = "Dogs in latent space", "The authors of Dogs in latent space"
version = release = vae_helpers.__version__
extensions = ["myst_nb"]
nb_execution_mode = "off"  # the notebooks' stored outputs are shown; nothing runs
myst_enable_extensions = ["colon_fence", "dollarmath", "html_image"]
myst_heading_anchors = 4
html_math_renderer = "katex"
highlight_language = "none"  # blocks that name no language

html_theme = "furo"
html_title, html_favicon = project, "static/favicon.svg"
toc_object_entries_show_parents = "hide"
html_static_path, templates_path = ["static"], ["templates"]
html_css_files, html_js_files = ["site.css"], [("site.js", {"defer": "defer"})]
html_show_sourcelink = html_copy_source = html_show_copyright = False
html_theme_options = {"top_of_page_buttons": []}


@cache
def typeset(formula: str, kind: str) -> str:
    """HTML with MathML inside, made by KaTeX at build time: pages then need its style sheet and fonts, but no script."""
    command = ["node", "-e", KATEX, str(Path(__file__).parent / "katex.js"), kind]
    return subprocess.run(command, input=formula, capture_output=True, text=True, check=True).stdout


def add_formula(translator, node: nodes.math | nodes.math_block) -> None:
    """For Sphinx's HTML writer: a formula in a line, or one by itself."""
    kind = "block" if isinstance(node, nodes.math_block) else "inline"
    html = typeset(node.astext(), kind)
    translator.body.append(f'<div class="math-block" tabindex="0">{html}</div>' if kind == "block" else html)
    raise nodes.SkipNode


def add_alt_texts(app: Sphinx, doctree: nodes.document) -> None:
    """Give each picture of a notebook the alt text that `show` stored beside it; myst-nb does not read it."""
    source = Path(doctree["source"])
    if source.suffix != ".ipynb":
        return
    cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", []) if "data" in output]
    alt_texts = [output["metadata"][kind]["alt"] for output in outputs for kind in output["data"] if kind.startswith("image/")]
    pictures = [node for node in doctree.findall(nodes.image) if "mime_type" in node.parent.attributes]
    for picture, alt in zip(pictures, alt_texts, strict=True):
        picture["alt"] = alt


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("katex", (add_formula, None), (add_formula, None))
    app.connect("doctree-read", add_alt_texts)
    app.add_css_file("katex/katex.min.css")
