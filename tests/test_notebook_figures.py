"""A picture in a committed notebook is that of the committed file in figures/: both come from one drawing.

Files are read from git's index, not from the disk: the batch, `make figures` and the tests of
notebooks draw figures anew, on another machine with other bytes, and leave the notebooks as they are.
"""

import subprocess
from hashlib import sha256
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from cbbt.notebook import show_figure
from cbbt.results.plots.speed import text_speed
from cbbt.results.plots.style import save_figure

ROOT = Path(__file__).parent.parent


def git(*arguments) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True).stdout


def listed(folder: str, *endings: str) -> list[str]:
    """Paths of the files in git's index."""
    return [path for path in git("ls-files", folder).decode().splitlines() if path.endswith(endings)]


def cells(notebook: str) -> list:
    return nbformat.reads(git("show", f":./{notebook}").decode(), as_version=4).cells


def shown(notebook: str) -> dict[str, str]:
    """Name of a figure's file → its digest when the notebook was run."""
    outputs = [output for cell in cells(notebook) for output in cell.get("outputs", ())]
    return {name: mark for output in outputs for name, mark in output.get("metadata", {}).get("files", {}).items()}


NOTEBOOKS = listed("notebooks", ".ipynb")
# A notebook that saves figures has a parameter for their folder.
SAVING = [path for path in NOTEBOOKS if any("figures: str" in cell.source for cell in cells(path))]


@pytest.mark.parametrize("notebook", SAVING)  # none, where there is no git
def test_pictures_are_those_of_the_files(notebook):
    marks = shown(notebook)
    files = {name: sha256(git("show", f":./figures/{name}")).hexdigest() for name in marks}
    assert marks and marks == files, "run it again (make notebooks), and commit it with its figures"


@pytest.mark.skipif(not NOTEBOOKS, reason="nothing is committed here")
def test_every_figure_stands_in_a_notebook():
    figures = {Path(path).name for path in listed("figures", ".pdf", ".png")}
    assert figures == set().union(*map(shown, NOTEBOOKS))


def test_a_picture_carries_the_digests_of_its_files_and_another_table_has_others(monkeypatch, tmp_path):
    table = pd.DataFrame({"backbone": "RN50", "classes": [10, 100], "context_length": 1, "over_padded": [8, 9], "over_cut": 3})
    marks = []
    monkeypatch.setattr("IPython.display.display", lambda picture, metadata: marks.append(metadata["files"]))
    for speed in (table, table, table.assign(over_padded=[8, 10])):
        figure = text_speed(speed)
        paths = save_figure(figure, "speed", tmp_path)
        show_figure(figure)
        assert marks[-1] == {path.name: sha256(path.read_bytes()).hexdigest() for path in paths}
    assert marks[0] == marks[1] and not marks[0].items() & marks[2].items()
