"""Every notebook in JupyterLab, in a browser: run all cells, no error, every figure drawn, every slider moved.

    python tests/check_jupyterlab.py [--notebooks notebooks/0*.ipynb] [--out results/browser]

Needs Debian's chromium and chromium-driver and the package selenium (`make
check-browser` installs them). Works on a copy of the repository's files, in a
JupyterLab of its own on loopback. Keeps a screenshot of each notebook; ends with
status 1 if any failed. Not one of the tests: it takes as long as the notebooks.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

ROOT = Path(__file__).parent.parent
PORT = 8899
# JupyterLab's own application object, exposed by --expose-app-in-browser.
CLEAR = "return jupyterapp.commands.execute('notebook:clear-all-cell-outputs').then(() => true)"
SAVE = "return jupyterapp.commands.execute('docmanager:save').then(() => true)"
READY = """
const panel = window.jupyterapp?.shell?.currentWidget;
return Boolean(panel?.sessionContext?.session?.kernel) && panel.sessionContext.session.kernel.status === 'idle'
    && panel.content?.widgets?.length > 0;
"""
STATE = """
const panel = jupyterapp.shell.currentWidget;
const code = panel.content.widgets.filter(cell => cell.model.type === 'code' && cell.model.sharedModel.getSource().trim());
const outputs = code.flatMap(cell => cell.model.sharedModel.getOutputs());
return {
    status: panel.sessionContext.session?.kernel?.status,
    cells: code.length,
    executed: code.filter(cell => cell.model.sharedModel.execution_count).length,
    errors: outputs.filter(o => o.output_type === 'error').map(o => `${o.ename}: ${o.evalue}`),
    figures: outputs.filter(o => o.data && o.data['image/png']).length,
};
"""
# Cells far from the window are not rendered until they are scrolled to.
DRAWN = """
const [index, done] = arguments;
const cell = jupyterapp.shell.currentWidget.content.widgets[index];
cell.node.scrollIntoView();
setTimeout(() => done([...cell.node.querySelectorAll('.jp-OutputArea img')].map(i => i.complete ? i.naturalWidth : 0)), 400);
"""
WITH_FIGURES = """
return jupyterapp.shell.currentWidget.content.widgets.map((cell, index) => [cell, index])
    .filter(([cell]) => cell.model.type === 'code'
        && cell.model.sharedModel.getOutputs().some(o => o.data && o.data['image/png'])).map(([, index]) => index);
"""
WITH_SLIDERS = """
return jupyterapp.shell.currentWidget.content.widgets.map((cell, index) => [cell, index])
    .filter(([cell]) => cell.model.type === 'code' && /^sliders\\(/m.test(cell.model.sharedModel.getSource()))
    .map(([, index]) => index);
"""
NODE = "const cell = jupyterapp.shell.currentWidget.content.widgets[arguments[0]]; cell.node.scrollIntoView(); return cell.node"


def serve(folder: Path, token: str) -> subprocess.Popen:
    """A JupyterLab of this environment on loopback, ready to answer."""
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser", f"--port={PORT}"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    # Kernels must find the environment's programs, and import the copied package.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(folder), "JUPYTER_PLATFORM_DIRS": "1"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(120):
        if server.poll() is not None:
            raise RuntimeError(f"JupyterLab ended at its start: is port {PORT} taken?")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api/status?token={token}"):
                return server
        except OSError:
            time.sleep(0.5)
    server.terminate()
    raise RuntimeError("JupyterLab did not start within a minute")


def browser() -> webdriver.Chrome:
    options = Options()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,1800"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium")
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    driver.set_script_timeout(60)
    return driver


def wait_for(driver, script: str, holds, seconds: float):
    """The script's value once `holds` says so; TimeoutError with the last value after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = driver.execute_script(script)
        if holds(value):
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds:.0f} s: {value}")
        time.sleep(0.5)


def moves(driver, index: int) -> bool:
    """Whether what a cell shows, texts and pictures, changes when its first slider is moved by the keyboard."""

    def shown(cell) -> str:
        pictures = [image.get_attribute("src") for image in cell.find_elements(By.CSS_SELECTOR, ".jp-OutputArea img")]
        texts = [each.text for each in cell.find_elements(By.CSS_SELECTOR, ".jp-OutputArea pre")]
        return "".join(pictures + texts)

    def comes(wanted) -> bool:
        """Whether it holds within 30 s."""
        return any(wanted() or time.sleep(0.5) for _ in range(60))

    cell = driver.execute_script(NODE, index)
    handle = ".widget-slider .noUi-handle"
    if not comes(lambda: cell.find_elements(By.CSS_SELECTOR, handle) and shown(cell)):
        return False
    before = shown(cell)
    cell.find_element(By.CSS_SELECTOR, handle).send_keys(Keys.ARROW_RIGHT)
    return comes(lambda: shown(cell) not in ("", before))


def check(driver, name: str, token: str, out: Path, seconds: float) -> dict:
    """Open a notebook in a fresh workspace, clear it, run it, look at it; its state, with what is wrong."""
    driver.get(f"http://127.0.0.1:{PORT}/lab/workspaces/{Path(name).stem}/tree/notebooks/{name}?token={token}&reset")
    wait_for(driver, READY, bool, 120)
    driver.execute_script(CLEAR)
    driver.execute_script("jupyterapp.commands.execute('notebook:run-all-cells'); return true")

    def ended(state):
        return state["errors"] or (state["executed"] == state["cells"] and state["status"] == "idle")

    state = wait_for(driver, STATE, ended, seconds)
    widths = [width for index in driver.execute_script(WITH_FIGURES) for width in driver.execute_async_script(DRAWN, index)]
    state["drawn"] = sum(width > 0 for width in widths)
    sliders = [moves(driver, index) for index in driver.execute_script(WITH_SLIDERS)]
    state["sliders"], state["moved"] = len(sliders), sum(sliders)
    driver.save_screenshot(str(out / f"{Path(name).stem}.png"))
    driver.execute_script(SAVE)
    state["passed"] = not state["errors"] and state["drawn"] == len(widths) >= state["figures"] and all(sliders)
    return state


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notebooks", nargs="+", type=Path, default=sorted((ROOT / "notebooks").glob("*.ipynb")))
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "browser")
    parser.add_argument("--seconds", type=float, default=900, help="time limit of one notebook")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    token, failed = secrets.token_hex(16), []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "kit"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(".venv", ".git", "results", ".snakemake"))
        server = serve(copy, token)
        driver = browser()
        try:
            for path in options.notebooks:
                begun = time.monotonic()
                try:
                    state = check(driver, path.name, token, options.out, options.seconds)
                except Exception as error:  # one notebook's trouble must not hide the others'
                    state = {"passed": False, "errors": [f"{type(error).__name__}: {error}"]}
                print(
                    path.name,
                    "passed" if state["passed"] else "FAILED",
                    f"{time.monotonic() - begun:.0f} s",
                    json.dumps(state),
                    flush=True,
                )
                failed += [] if state["passed"] else [path.name]
        finally:
            driver.quit()
            server.terminate()
            server.wait()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
