"""A picture in a committed notebook is that of the file in figures/: both come from one drawing."""

from hashlib import sha256
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from cbbt.notebook import show_figure
from cbbt.results.plots.speed import text_speed
from cbbt.results.plots.style import save_figure

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "figures"
COMMITTED = {path.name: nbformat.read(path, as_version=4).cells for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
SAVING = [name for name, cells in COMMITTED.items() if any("save_figure(" in cell.source for cell in cells)]


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def shown(cells) -> dict[str, str]:
    """Name of a figure's file → its digest when the notebook was run."""
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return {name: mark for output in outputs for name, mark in output.get("metadata", {}).get("files", {}).items()}


@pytest.mark.parametrize("name", SAVING)
def test_pictures_are_those_of_the_files(name):
    marks = shown(COMMITTED[name])
    assert marks and marks == {file: digest(FIGURES / file) for file in marks}, "run the notebook again: make notebooks"


def test_every_figure_stands_in_a_notebook():
    in_notebooks = set().union(*map(shown, COMMITTED.values()))
    assert {path.name for path in FIGURES.iterdir() if path.suffix in (".pdf", ".png")} == in_notebooks


def test_a_picture_carries_the_digests_of_its_files_and_another_table_has_others(monkeypatch, tmp_path):
    table = pd.DataFrame({"backbone": "RN50", "classes": [10, 100], "context_length": 1, "over_padded": [8, 9], "over_cut": 3})
    marks = []
    monkeypatch.setattr("IPython.display.display", lambda picture, metadata: marks.append(metadata["files"]))
    for speed in (table, table, table.assign(over_padded=[8, 10])):
        figure = text_speed(speed)
        paths = save_figure(figure, "speed", tmp_path)
        show_figure(figure)
        assert marks[-1] == {path.name: digest(path) for path in paths}
    assert marks[0] == marks[1] and not marks[0].items() & marks[2].items()
