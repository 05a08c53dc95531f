"""What papermill may set: names, types and text forms, with the valid choices named."""

import ast
from pathlib import Path
from typing import Optional

import nbformat
import numpy as np
import pytest
import yaml
from papermill.inspection import inspect_notebook

import cbbt
from cbbt.notebook import check_parameters, figures_folder, read_parameters, remove_bars, show_finding, sliders

ROOT = Path(__file__).parent.parent

DECLARED = """
dataset: str = "digits"  # a task
methods: list = ["cbbt"]  # methods
shots: int = 16  # shots
rate: float = 0.1  # a rate
pretrained: Optional[str] = "default"  # weights
settings: dict = {}  # more
"""


def session(injected: str = "", declared: str = DECLARED) -> dict:
    """A notebook's globals after its parameters cell and papermill's."""
    namespace = {"In": ["import os", declared], "Optional": Optional}
    exec(declared, namespace)
    if injected:
        namespace["In"].append("# Parameters\n" + injected)
        exec(injected, namespace)
    return namespace


def test_defaults_are_read():
    p = read_parameters(session())
    assert vars(p) == {
        "dataset": "digits",
        "methods": ["cbbt"],
        "shots": 16,
        "rate": 0.1,
        "pretrained": "default",
        "settings": {},
    }


def test_injected_values_win_and_text_is_understood():
    p = read_parameters(session('methods = "cbbt, coop4"\nsettings = "q: 8, epochs: 2"\nrate = 1\npretrained = None'))
    assert p.methods == ["cbbt", "coop4"] and p.settings == {"q": 8, "epochs": 2} and p.pretrained is None
    assert p.rate == 1.0 and isinstance(p.rate, float)
    assert read_parameters(session("methods = 3")).methods == [3]


@pytest.mark.parametrize("kind", ["Optional[str]", "str | None"])
def test_both_ways_of_writing_an_optional_value(kind):
    declared = DECLARED.replace("Optional[str]", kind)
    assert read_parameters(session("pretrained = None", declared)).pretrained is None
    with pytest.raises(TypeError, match="parameter pretrained must be str or None, got 3"):
        read_parameters(session("pretrained = 3", declared))


def test_a_misspelt_name_stops_with_the_right_one():
    with pytest.raises(NameError, match="unknown parameter 'shot': did you mean shots.*dataset, methods, shots"):
        read_parameters(session("shot = 4"))


@pytest.mark.parametrize(
    "line, expected",
    [
        ('shots = "many"', "shots must be int"),
        ("shots = True", "shots must be int"),
        ("dataset = 3", "dataset must be str"),
        ('rate = "x"', "rate must be float"),
    ],
)
def test_a_wrong_type_is_named(line, expected):
    with pytest.raises(TypeError, match=expected):
        read_parameters(session(line))


@pytest.mark.parametrize("text", ["q", "q: [", "{"])
def test_a_dict_that_does_not_read_as_one_is_shown_how(text):
    with pytest.raises(TypeError, match="parameter settings must be dict, written 'a: 1, b: 2', got '"):
        read_parameters(session(f"settings = {text!r}"))
    assert read_parameters(session('settings = ""')).settings == {}


def test_the_last_run_of_the_parameters_cell_counts():
    namespace = session("shots = 4")
    namespace["In"].append(DECLARED)  # run again by hand
    exec(DECLARED, namespace)
    assert read_parameters(namespace).shots == 16


def test_a_runner_without_history_is_served():
    namespace = session()
    namespace["In"] = [""]
    assert read_parameters(namespace).pretrained == "default"


def test_without_a_parameters_cell_there_is_an_error():
    with pytest.raises(NameError, match="no parameters cell"):
        read_parameters({"In": ["x = 1"]})


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_papermill_lists_every_parameter(path):
    (declared,) = [c.source for c in nbformat.read(path, as_version=4).cells if "parameters" in c.metadata.get("tags", [])]
    names = [line.target.id for line in ast.parse(declared).body]
    assert list(inspect_notebook(str(path))) == names


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_committed_notebooks_have_no_bars_that_stand_still(path, tmp_path):
    (tmp_path / path.name).write_bytes(path.read_bytes())
    remove_bars(tmp_path / path.name)
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "notebooks").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_parameter_files_are_valid(path):
    """Each says in its comment which notebook it is for."""
    (notebook,) = [word for word in path.read_text().split() if word.startswith("notebooks/")]
    cells = nbformat.read(ROOT / notebook, as_version=4).cells
    (declared,) = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    values = yaml.safe_load(path.read_text())
    p = read_parameters(session("\n".join(f"{name} = {value!r}" for name, value in values.items()), declared))
    assert values and {name: getattr(p, name) for name in values} == values


@pytest.mark.parametrize(
    "line, name, expected",
    [
        ('rate = "1e-3"', "rate", 0.001),  # what YAML makes of 1e-3
        ("rate = np.float32(0.5)", "rate", 0.5),
        ("shots = 4.0", "shots", 4),
        ('shots = "4"', "shots", 4),
        ("shots = np.int64(4)", "shots", 4),
        ('dataset = Path("/data") / "pets"', "dataset", "/data/pets"),
        ('methods = "[1, 2]"', "methods", [1, 2]),
        ("methods = \"['a', 'b']\"", "methods", ["a", "b"]),
        ('methods = "[a, b]"', "methods", ["a", "b"]),
        ('methods = "(1, 2)"', "methods", [1, 2]),
        ('methods = "- a\\n- b"', "methods", ["a", "b"]),
        ('methods = "1, 1e-3, NA, null"', "methods", [1, 0.001, "NA", "null"]),
        ('methods = "/data/pets (small)"', "methods", ["/data/pets (small)"]),
        ('methods = ""', "methods", []),
        ("methods = (1, 2)", "methods", [1, 2]),
        ("methods = range(1, 4)", "methods", [1, 2, 3]),
        ("methods = np.arange(2)", "methods", [0, 1]),
        ("methods = [np.int64(3)]", "methods", [3]),
        ('settings = "adapter_lr: 1e-3, epochs: 2"', "settings", {"adapter_lr": 0.001, "epochs": 2}),
        ('settings = "q: 4\\nepochs: 2"', "settings", {"q": 4, "epochs": 2}),
        ("settings = \"{'q': 4, 'mirror': True, 'template': None}\"", "settings", {"q": 4, "mirror": True, "template": None}),
        ('settings = \'{"q": 4, "mirror": true, "template": null}\'', "settings", {"q": 4, "mirror": True, "template": None}),
        ("settings = \"template: '2024-01-01'\"", "settings", {"template": "2024-01-01"}),
        ('settings = {"seeds": range(2), "rate": np.float64(0.5)}', "settings", {"seeds": [0, 1], "rate": 0.5}),
        ('wanted = "true"', "wanted", True),
        ("wanted = np.bool_(False)", "wanted", False),
    ],
)
def test_a_value_is_read_in_the_forms_that_people_use(line, name, expected):
    namespace = session(declared=DECLARED + "wanted: bool = True\n") | {"np": np, "Path": Path}
    exec(line, namespace)
    value = getattr(read_parameters(namespace), name)
    assert value == expected and type(value) is type(expected)


@pytest.mark.parametrize(
    "line, expected",
    [
        ("shots = 3.5", "shots must be int, got 3.5"),
        ('shots = "3.5"', "shots must be int, got '3.5'"),
        ('rate = "fast"', "rate must be float, got 'fast'"),
        ("rate = True", "rate must be float, got True"),
        ("dataset = 2024", "dataset must be str, got 2024; in quotes, or by papermill's -r, it is text"),
        ('methods = "[1, 2"', r"methods must be list, written '\[1, 2\]' or 'a, b', got '\[1, 2'"),
        ('methods = "range(1, 4)"', "methods must be list, written"),
        ("methods = None", "methods must be list, written"),
        ('settings = "q:4"', "settings must be dict, written 'a: 1, b: 2', got 'q:4'"),
        ('settings = "q=4"', "settings must be dict, written"),
        ("settings = [1]", "settings must be dict, written"),
    ],
)
def test_what_cannot_be_read_is_shown_a_form_that_works(line, expected):
    with pytest.raises(TypeError, match=f"parameter {expected}"):
        read_parameters(session(line))


def test_papermills_own_names_are_let_through():
    assert read_parameters(session('shots = 4\nPAPERMILL_INPUT_PATH = "a.ipynb"\nPAPERMILL_OUTPUT_PATH = "b.ipynb"')).shots == 4
    check_parameters(ROOT / "notebooks" / "04_figures.ipynb", {"PAPERMILL_INPUT_PATH": "a.ipynb", "shots": "4"})


def test_a_notebook_run_as_a_script_has_its_annotated_names():
    namespace = session()
    del namespace["In"]
    exec('shots = "4"', namespace)
    assert read_parameters(namespace).shots == 4


def test_settings_are_read_by_the_same_door():
    config = cbbt.RunConfig.from_dict({"dataset": "digits", "method": "adapter", "adapter_lr": "5e-3", "shots": np.int64(4)})
    assert config.run_id == cbbt.RunConfig("digits", "adapter", shots=4, adapter_lr=0.005).run_id
    with pytest.raises(TypeError, match="adapter_lr must be float or None, got 'fast'"):
        cbbt.RunConfig("digits", "adapter", adapter_lr="fast")


def test_figures_of_other_tables_stay_out_of_the_kits_folder():
    assert figures_folder("", "") == ROOT / "figures"
    assert figures_folder("", "", "my/records") == ROOT / "results" / "explore" / "figures"
    assert figures_folder("~/mine", "my/tables") == Path.home() / "mine"


def test_sliders_without_anybody_to_move_them_call_once_with_the_defaults():
    seen = []
    sliders(lambda ratio=0.5: seen.append(ratio), ratio=(0.0, 1.0))
    assert seen == [0.5]


def test_a_finding_is_markdown_that_says_so(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    show_finding("*q* = 64 is enough.")
    assert [output.data for output in shown] == ["**Finding.** *q* = 64 is enough."]


def test_several_findings_are_a_list_with_minus_signs(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    show_finding("CBBT -3.0 points, RN50-16, 1e-4", "*Style*: +0.2 to -1")
    assert [output.data for output in shown] == ["- CBBT −3.0 points, RN50-16, 1e-4\n- *Style*: +0.2 to −1"]
