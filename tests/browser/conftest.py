"""A JupyterLab server on loopback and a headless Chromium that opens notebooks in it."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
FLAGS += ["--disable-quic", "--no-first-run", "--disable-component-update"]
FLAGS += ["--autoplay-policy=no-user-gesture-required"]


@pytest.fixture(scope="session")
def chromium():
    """Debian's Chromium, or the one named by CHROMIUM."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    assert path, "no Chromium: apt install chromium, or set CHROMIUM to its path"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory):
    """The folder that the server shows, with copies of the notebooks."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="session")
def server(server_folder):
    """The address of a JupyterLab on copies of the notebooks, in quick mode."""
    folder = server_folder
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    log = folder / "log.txt"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"]
    command += [f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=", "--ip=127.0.0.1"]
    command += ["--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None"]
    tracker = folder / "settings" / "@jupyterlab" / "notebook-extension"
    tracker.mkdir(parents=True)  # every cell is in the page, not only those in view
    (tracker / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    environment = os.environ | {"DENOISER_QUICK": "1", "JUPYTER_CONFIG_DIR": str(folder)}
    environment["JUPYTERLAB_SETTINGS_DIR"] = str(folder / "settings")
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        for _ in range(600):
            if found := re.search(r"http://127\.0\.0\.1:\d+/lab", log.read_text()):
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield found[0]
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def open_notebook(chromium, server):
    """A function name -> page, with the notebook open and every cell run."""
    pages = []

    def run(name):
        page = chromium.new_page(viewport={"width": 1400, "height": 1100})
        pages.append(page)
        page.set_default_timeout(180_000)
        workspace = name.replace("/", "-")
        page.goto(f"{server}/workspaces/{workspace}/tree/notebooks/{name}.ipynb")
        page.wait_for_function("window.jupyterapp?.shell.currentWidget?.context?.isReady")
        page.evaluate(
            """async () => {
                const panel = window.jupyterapp.shell.currentWidget;
                await panel.context.ready;
                await panel.sessionContext.ready;
                await window.jupyterapp.commands.execute('notebook:run-all-cells');
            }"""
        )
        return page

    yield run
    for page in pages:
        page.close()
