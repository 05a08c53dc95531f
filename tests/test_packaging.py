"""environment.yml, pyproject.toml, the package's shape, the README and docs stay in step."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

import cbbt

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "cbbt").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = sorted((ROOT / "docs").rglob("*.ipynb"))  # notebooks run once on photographs, which no test has
README = (ROOT / "README.md").read_text()
OF_A_MACHINE = re.compile(r"/(home|root|tmp|work|Users)/")  # paths that no committed notebook names


def test_conda_environment_installs_what_pyproject_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == ["-e .[test]"]  # everything else comes from pyproject.toml
    assert f"python{project['requires-python']}" in plain
    named = " ".join([*project["dependencies"], *project["optional-dependencies"]["test"]])
    for package in ("jupyterlab", "torch", "open_clip_torch", "matplotlib", "seaborn", "papermill", "nbval"):
        assert package in named


def test_every_import_is_a_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    provided = {re.split(r"[<>=]", name)[0] for name in project["dependencies"]}
    lazy = re.compile(r'lazy_loader\.load\("(\w+)')
    distribution = {
        "PIL": "pillow",
        "yaml": "pyyaml",
        "open_clip": "open_clip_torch",
        "sklearn": "scikit-learn",
        "mpl_toolkits": "matplotlib",
        "cycler": "matplotlib",
        "IPython": "ipykernel",
        "starlette": "fastapi",
    }
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            names += lazy.findall(ast.unparse(node)) if isinstance(node, ast.Assign) else []
            for name in {name.split(".")[0] for name in names}:
                known = name in sys.stdlib_module_names or name in ("cbbt", "__future__")
                assert known or distribution.get(name, name) in provided, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_small_documented_and_plain(path):
    source = path.read_text()
    assert len(source.splitlines()) <= (320 if path.name == "text_tower.py" else 300)
    assert ast.get_docstring(ast.parse(source)) and "import *" not in source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_follow_the_plan(path):
    assert path.stat().st_size < 1_000_000 and not OF_A_MACHINE.search(path.read_text())
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert cells[0].cell_type == "markdown" and cells[0].source.startswith("# ") and "References" in cells[0].source
    assert cells[-1].cell_type == "markdown" and "What we found" in cells[-1].source
    parameters = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(parameters) == 1
    for line, node in zip(parameters[0].source.strip().splitlines(), ast.parse(parameters[0].source).body, strict=True):
        assert isinstance(node, ast.AnnAssign) and "#" in line
        ast.literal_eval(node.value)
    assert any(cell.source.startswith("# NBVAL_CHECK_OUTPUT") for cell in code)
    assert "version" in code[0].source
    for cell in code:
        assert cell.execution_count, f"not executed: {cell.source[:60]!r}"
        assert not any(output.output_type == "error" for output in cell.outputs)
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 10, f"{node.name} belongs in the package"


def test_notebooks_lead_to_each_other():
    """In the order of their names, by the bar below the title."""
    names = [path.name for path in NOTEBOOKS]
    for path, before, after in zip(NOTEBOOKS, ["README.md", *names], [*names[1:], ""]):
        bar = nbformat.read(path, as_version=4).cells[0].source.splitlines()[2]
        assert bar.startswith("← ") and f"{before})" in bar and f"{after})" in bar and "[contents](" in bar, path.name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_that_teach_have_formulas_and_exercises(path):
    cells = nbformat.read(path, as_version=4).cells
    assert any("$$" in cell.source for cell in cells) and "**Try it**" in cells[-1].source and " minute" in cells[0].source
    assert cells[-1].source.count("\n1. ") == cells[-1].source.count("\n3. ") == 1


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages_are_notebooks_run_whole_on_photographs(path):
    assert path.stat().st_size < 1_000_000
    cells = nbformat.read(path, as_version=4).cells
    own = nbformat.read(ROOT / "notebooks" / path.name, as_version=4).cells
    given = [cell for cell in cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert [cell.source for cell in cells if cell not in given] == [cell.source for cell in own]
    assert "photo" in given[0].source and "eurosat" in given[0].source
    for cell in cells:
        assert cell.cell_type != "code" or cell.execution_count
        assert not any(output.output_type == "error" for output in cell.get("outputs", ()))
    assert not OF_A_MACHINE.search(path.read_text())


def test_every_notebook_is_linked():
    text = (ROOT / "docs" / "notebooks.md").read_text()
    links = {(ROOT / "docs" / link).resolve() for link in re.findall(r"\]\(([^)]+)\)", text)}
    unlinked = [path.name for path in [*NOTEBOOKS, *PAGES] if path not in links]
    assert [name for name in unlinked if name != "02_gradient_approximation.ipynb"] == []  # which becomes 02a and 02b


def test_readme_names_the_commands_that_run_everything():
    assert "make test" in README and "make reproduce" in README
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")


def test_make_photos_asks_where_the_pictures_are():
    """And the folder reaches both the batch, which fetches what is missing, and snakemake."""
    unnamed, named = (
        subprocess.run(["make", "-n", "photos", *data], cwd=ROOT, capture_output=True, text=True) for data in ([], ["DATA=a b"])
    )
    assert unnamed.returncode and "make photos DATA=dir" in unnamed.stderr
    (line,) = [line for line in named.stdout.splitlines() if "cbbt.runs.batch" in line]
    assert re.search(r"batch --download +snakemake .*--configfile configs/photos.yaml --config 'data_root=a b'", line)


def test_what_a_newcomer_reads_is_named_and_short():
    """The nine files that `cbbt.__doc__` lists, in its order."""
    listed = re.findall(r"^\d\. `([\w.]+)`", (ROOT / "cbbt" / "__init__.py").read_text(), re.MULTILINE)
    files = [ROOT / "cbbt" / f"{name.replace('.', '/')}.py" for name in listed]
    assert len(files) == 9 and listed[-1] == "methods.cbbt"
    assert sum(len(path.read_text().splitlines()) for path in files) < 1450


@pytest.mark.parametrize("room", sorted({path.parent for path in MODULES}), ids=lambda room: room.name)
def test_every_room_says_what_it_is_and_in_which_order_to_read_it(room):
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
    assert 2 < len(text.splitlines()) < 30 and ("Read " in text or "read " in text or room.name == "parts")


HEAVY = ("open_clip", "torchvision", "timm", "sklearn", "cma", "pandas", "matplotlib")
LIGHT = f"""
import sys, cbbt
assert "torch" not in sys.modules
import cbbt.runs.experiment, cbbt.runs.grid
assert not [name for name in {HEAVY} if type(sys.modules.get(name)).__name__ == "module"]  # a lazy one is of another type
"""


def test_imports_wait_until_they_are_needed():
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_every_public_name_is_there():
    assert all(getattr(cbbt, name) for name in cbbt.__all__)
