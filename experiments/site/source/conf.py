"""Sphinx's settings. It runs on what `python -m experiments site` lays out below output/site."""

import importlib.util
import shutil
from pathlib import Path

project = "Speech denoising with autoencoders"
author = copyright = "The denoiser course authors"
language = "en"
extensions = ["myst_nb", "sphinx_copybutton", "sphinx_design"]
exclude_patterns = ["extra", "slides"]
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # no widgets without a kernel, and nothing from other hosts
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]

html_theme = "sphinx_book_theme"
html_title = project
html_favicon = "extra/try/web/icon.svg"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["bench.js"]
html_extra_path = ["extra"]  # sounds, pictures, notebooks, the page to try
html_copy_source = False
html_show_sourcelink = False
html_last_updated_fmt = None
html_context = {"default_mode": "auto"}
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,  # the row below the title has them
    "use_fullscreen_button": False,
    "show_navbar_depth": 1,
    "footer_content_items": [],
    "navbar_persistent": [],  # the search stands at the left
}
mathjax_path = "mathjax/tex-chtml.js"
copybutton_selector = "div.cell_input div.highlight pre, div.highlight-bash pre"


def copy_packages(app, error) -> None:
    """Put what the pages need of two packages beside them: formulas and slides, without the rest.

    Both are asked from this site's own host, so that a page needs no other.
    """
    if error:
        return
    out = Path(app.outdir, "_static")
    for path in out.rglob("*.map"):  # for who debugs the theme
        path.unlink()
    mathjax = folder_of("sphinx-mathjax-offline") / "static" / "mathjax"
    fonts = "output/chtml/fonts/woff-v2"
    shutil.copytree(mathjax / fonts, out / "mathjax" / fonts, dirs_exist_ok=True)
    shutil.copy(mathjax / "tex-chtml.js", out / "mathjax")
    reveal = folder_of("sphinx_revealjs") / "_static" / "revealjs"
    for name in ("dist/reveal.js", "dist/reveal.css", "plugin/notes/notes.js", "LICENSE"):
        (out / "reveal" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(reveal / name, out / "reveal" / name)
    (out / "reveal" / "dist" / "theme").mkdir(exist_ok=True)
    shutil.copy(out / "slides.css", out / "reveal" / "dist" / "theme" / "course.css")


def folder_of(package: str) -> Path:
    """Where an installed package lies."""
    return Path(importlib.util.find_spec(package).origin).parent


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("build-finished", copy_packages)
