"""Runs notebooks 2b, 3 and 5 on EuroSAT with the photo box, into this folder.

    python docs/photographs/render.py DATA [02b_analysis 03_training 05_peers]

DATA is the folder that holds eurosat/, best given relative to the project's root, because the page
shows it. Methods have the settings of configs/photos.yaml; its existing records are read back.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import papermill

from cbbt.notebook import remove_bars
from cbbt.runs.grid import Grid

ROOT = Path(__file__).parents[2]
TRAINED = ["zero_shot", "zero_shot_bare", "true_gradient", "cbbt_prompt", "adapter", "cbbt"]
PEERS = ["zero_shot", "lfa", "word_search", "bbt", "bpt_vlm_text", "zip", "craft", "cbbt_prompt", "cbbt", "cbbt_plus"]


def settings(methods: list[str], without: tuple[str, ...]) -> dict[str, dict]:
    """The grid's settings for each method on EuroSAT, without those that are parameters of the notebook."""
    grid = Grid.from_file("configs/photos.yaml")
    cells = {method: cell for cell in grid.cells() if cell.dataset == "eurosat" for method in cell.methods}
    given = {method: grid.settings_of(cells[method], method) for method in methods}
    return {method: {key: value for key, value in values.items() if key not in without} for method, values in given.items()}


def pages() -> dict[str, dict]:
    """Notebook → its parameters."""
    tables = {"tables": "figures/data/photos", "figures": "results/photos/figures"}
    trained = {"methods": TRAINED, "seeds": [1, 2, 3, 4, 5], "runs": "results/photos/runs"}
    trained["settings"] = settings(TRAINED, without=("backbone",))
    peers = {"methods": PEERS, "runs": "results/photos/small_runs"}
    peers["settings"] = settings(PEERS, without=("backbone", "max_loss_queries", "max_class_prompts"))
    return {
        "02b_analysis": {"training_epochs": 0, "descent_seeds": []} | tables,
        "03_training": {"cache": "results/features"} | trained,
        "05_peers": {"cache": "results/features"} | peers | tables,
    }


def render(name: str, parameters: dict) -> None:
    """Make one page, without traces of the machine: progress bars, warnings with paths, papermill's notes."""
    page = f"docs/photographs/{name}.ipynb"
    papermill.execute_notebook(f"notebooks/{name}.ipynb", page, parameters, cwd=".")
    remove_bars(page)
    notebook = nbformat.read(page, as_version=4)
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if not cell.metadata.get("tags", True):
            cell.metadata.pop("tags")
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    nbformat.write(notebook, page)


if __name__ == "__main__":
    root, *names = sys.argv[1:]
    os.chdir(ROOT)
    for name in names or pages():
        render(name, {"dataset": "eurosat", "backbone": "photo", "data_root": root} | pages()[name])
