"""The end of a grid of two backbones and many data sets: notebook 4's code and the report, on tables that are made up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import nbformat
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure

from cbbt.data.cards import CARDS

from .test_plots import grid

ROOT = Path(__file__).parent.parent
savefig = Figure.savefig
METHODS = ("zero_shot", "zero_shot_bare", "cbbt_prompt", "adapter", "cbbt")
BACKBONES = ("RN50", "ViT-B-16")
DATASETS = (*list(CARDS)[:5], "2024", "NA")  # benchmarks, and two folders with odd names


def write_tables(folder: Path, *parts) -> None:
    folder.mkdir(exist_ok=True)
    for name, tables in zip(("runs", "curves"), zip(*parts)):
        pd.concat(tables).to_csv(folder / f"{name}.csv", index=False)


def notebook_4(monkeypatch, capsys, **parameters) -> str:
    """What its cells print, with these parameters; for speed without layout, PNGs and the last check."""

    def save_plainly(figure, path, **options):
        path.touch()  # pictures, too, are read for their digests
        if path.suffix == ".pdf":
            figure.set_layout_engine("none")
            savefig(figure, path, **options)

    monkeypatch.setattr(Figure, "savefig", save_plainly)
    monkeypatch.setattr("cbbt.notebook.show_figure", lambda figure: None)
    namespace = {"In": []}
    with mpl.rc_context():
        for cell in nbformat.read(ROOT / "notebooks" / "04_figures.ipynb", as_version=4).cells:
            if cell.cell_type != "code" or "NBVAL_CHECK_OUTPUT" in cell.source:
                continue
            namespace["In"].append(cell.source)
            exec(cell.source, namespace)
            if "parameters" in cell.metadata.get("tags", []):
                namespace |= parameters
    return capsys.readouterr().out


def figures_in(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.pdf")}


@pytest.fixture
def two_backbones(tmp_path):
    """Tables of two backbones; the second has one data set, one seed, and fewer shots."""
    first, second = grid(DATASETS, METHODS, epochs=2), grid(("eurosat",), METHODS, shots=(4,), seeds=(1,), epochs=2)
    parts = [tuple(table.assign(backbone=name) for table in part) for name, part in zip(BACKBONES, (first, second))]
    write_tables(tmp_path / "tables", *parts)
    return tmp_path


def test_every_backbone_has_its_figures_and_tables(two_backbones, monkeypatch, capsys):
    out = notebook_4(monkeypatch, capsys, tables=str(two_backbones / "tables"), figures=str(two_backbones / "f"))
    of_runs = {name.removesuffix("-RN50") for name in figures_in(two_backbones / "f") if name.endswith("-RN50")}
    assert of_runs == {
        *("accuracy_against_shots", "gain_over_zero_shot", "gain_over_peers", "paired_differences"),
        *("accuracy_against_queries", "training_curves", "selection_comparison"),
    }
    fewer = {f"{name}-ViT-B-16" for name in of_runs}
    assert figures_in(two_backbones / "f") == {"method_diagram", *(f"{name}-RN50" for name in of_runs), *fewer}
    assert "ViT-B-16: 5 runs, 1 data sets" in out
    assert out.count("wording") == 2  # the gain of each, split
    tables = {path.name: path.read_text(encoding="utf-8") for path in (two_backbones / "f").glob("accuracy_table*")}
    assert set(tables) == {f"accuracy_table-{name}.{kind}" for name in BACKBONES for kind in ("md", "tex")}
    assert "4 shots per class, ViT-B-16" in tables["accuracy_table-ViT-B-16.md"] and "| NA " in tables["accuracy_table-RN50.md"]


def test_one_of_two_backbones_is_drawn_under_plain_names(two_backbones, monkeypatch, capsys):
    folders = {"tables": str(two_backbones / "tables"), "figures": str(two_backbones / "f")}
    notebook_4(monkeypatch, capsys, **folders, backbone="ViT-B-16", methods="cbbt")
    assert "accuracy_against_shots" in figures_in(two_backbones / "f")
    with pytest.raises(ValueError, match="no row has backbone='RN101', choose from RN50, ViT-B-16"):
        notebook_4(monkeypatch, capsys, **folders, backbone="RN101")


SHAPES = {  # of a grid → figures that cannot be drawn of it
    "zero-shot alone": (dict(methods=("zero_shot",)), 7),
    "one method": (dict(methods=("cbbt",)), 3),
    "one method, one shot number, one seed, one data set": (dict(datasets=("NA",), methods=("cbbt",), shots=(1,), seeds=(1,)), 3),
    "no validation images": (dict(datasets=("digits", "shapes"), methods=METHODS), 1),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_notebook_4_ends_whatever_the_grid(shape, tmp_path, monkeypatch, capsys):
    options, missing = SHAPES[shape]
    runs, curves = grid(**{"datasets": ("digits", "shapes"), "epochs": 2} | options)
    if shape == "no validation images":
        runs, curves = runs.drop(columns="test_accuracy_best_val"), curves.drop(columns="val_accuracy")
    write_tables(tmp_path / "tables", (runs, curves))
    out = notebook_4(monkeypatch, capsys, tables=str(tmp_path / "tables"), figures=str(tmp_path / "f"))
    assert out.count("not drawn: ") == missing + 10  # of gradients there are no tables
    assert len(figures_in(tmp_path / "f")) == 8 - missing and (tmp_path / "f" / "accuracy_table.tex").exists()


def test_of_several_settings_one_is_asked_for_and_drawn(tmp_path, monkeypatch, capsys):
    runs, _ = grid(("digits", "shapes"), ("cbbt",), shots=(16,), seeds=(1, 2), epochs=2)
    runs.insert(0, "q", 64)
    write_tables(tmp_path / "tables", (pd.concat([runs, runs.assign(q=4)]), pd.DataFrame({"dataset": []})))
    folders = {"tables": str(tmp_path / "tables"), "figures": str(tmp_path / "f")}
    with pytest.raises(ValueError, match=r"two rows of dataset=digits.*: keep the runs of one setting \(q: 64, 4\)"):
        notebook_4(monkeypatch, capsys, **folders)
    assert "4 runs, 2 data sets" in notebook_4(monkeypatch, capsys, **folders, settings="q: 4")


def test_figures_of_own_records_are_of_these_alone(tmp_path, monkeypatch, capsys):
    run = {"run_id": "a", "config": {"dataset": "Straße", "backbone": "mini", "method": "adapter", "shots": 1, "seed": 1}}
    run |= {"scores": {"test_accuracy": 50.0}, "queries": {"class_prompts": 10}, "seconds": {"fit": 1.0}, "n_judged": 9}
    run |= {"history": [], "versions": {}, "commit": None, "device": "cpu"}
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "record.json").write_text(json.dumps(run), encoding="utf-8")
    out = notebook_4(monkeypatch, capsys, records=str(tmp_path / "runs"), figures=str(tmp_path / "f"))
    assert "not drawn: the kit's tables of gradients are not of these runs" in out
    assert figures_in(tmp_path / "f") == {"method_diagram", "accuracy_against_shots"}


def test_the_report_prints_a_table_for_each_backbone_and_number_of_shots(two_backbones):
    """On a console without the sign ± too."""
    keys = {name: str(two_backbones / name) for name in ("results", "tables", "figures")}
    variants = {name: {"backbone": name} for name in BACKBONES}
    keys |= {"datasets": ["digits"], "methods": list(METHODS), "shots": [4, 16], "seeds": [1], "variants": variants}
    (two_backbones / "grid.yaml").write_text(yaml.safe_dump(keys) + "# méthode", encoding="utf-8")
    command = [sys.executable, "-m", "cbbt.runs.report", two_backbones / "grid.yaml"]
    console = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    out = subprocess.run(command, env=console, capture_output=True, text=True, check=True).stdout
    assert "16 shots per class, RN50" in out and "4 shots per class, ViT-B-16" in out
    assert "for ViT-B-16 with 16 shots: no run has shots=16; the table has 4" in out
