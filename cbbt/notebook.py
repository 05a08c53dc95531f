"""What every notebook needs: its parameters, checked before work starts, and its pictures.

Papermill injects any name it is given and only warns about unknown ones. A
notebook of this kit calls `read_parameters(globals())` in the cell after its
parameters: a name that the parameters cell does not declare, or a value of
another type than its annotation, stops the notebook with the valid choices.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import yaml

INJECTED = "# Parameters"  # first line of the cell that papermill injects
TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}


def read_parameters(namespace: dict) -> SimpleNamespace:
    """The notebook's parameters, checked, as a namespace.

    Args:
        namespace: the notebook's `globals()`; its `In` holds the cells run so far.

    The declared names are those of the last cell run that holds nothing but
    annotated assignments. As papermill's command line passes text, a list may be
    given as "a, b" and a dict as "a: 1, b: 2".
    Raises NameError for an unknown name, TypeError for a value of another type.
    """
    declared: dict[str, str] = {}
    injected: list[str] = []
    for source in namespace["In"]:
        if source.lstrip().startswith(INJECTED):
            injected = _assigned(source)
        elif annotations := _annotated(source):
            declared, injected = annotations, []
    if not declared:  # runners that keep no history, as nbval, leave `In` empty
        declared = {name: _text(kind) for name, kind in namespace.get("__annotations__", {}).items()}
    if not declared:
        raise NameError("no parameters cell has been run: run the cells above this one first")
    _require_declared(injected, declared)
    return SimpleNamespace(**{name: _checked(name, namespace[name], declared[name]) for name in declared})


def check_parameters(notebook: Path, values: dict) -> None:
    """Raise what `notebook` would on being given these parameters: NameError or TypeError."""
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    (source,) = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    declared = _annotated(source)
    _require_declared(values, declared)
    for name, value in values.items():
        _checked(name, value, declared[name])


def _require_declared(names, declared: dict[str, str]) -> None:
    for name in names:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise NameError(f"unknown parameter {name!r}: {hint}the parameters are {', '.join(declared)}")


def _checked(name: str, value, annotation: str):
    # Of the two ways to write it, papermill lists parameters that have the first.
    inner = re.fullmatch(r"(?:typing\.)?Optional\[(.+)\]|(.+) \| None", annotation)
    optional, annotation = inner is not None, (inner[1] or inner[2]) if inner else annotation
    kind = TYPES[annotation.split("[")[0]]
    if optional and value is None:
        return value
    if kind is dict and isinstance(value, str):
        try:
            pairs = yaml.safe_load("{" + value + "}") if ":" in value or not value.strip() else None
        except yaml.YAMLError:
            pairs = None
        if pairs is None:
            raise TypeError(f"parameter {name} must be {annotation}, written 'a: 1, b: 2', got {value!r}")
        value = pairs
    if kind is list and not isinstance(value, list):
        value = [_literal(part) for part in value.split(",")] if isinstance(value, str) else [value]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"parameter {name} must be {annotation}{' or None' * optional}, got {value!r}")
    return value


def _text(annotation) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _literal(text: str):
    """A number if it reads as one, else the text itself."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text.strip()


def _annotated(source: str) -> dict[str, str]:
    """name → annotation, if the cell is annotated assignments and nothing else."""
    try:
        body = ast.parse(source).body
    except SyntaxError:  # a cell with magics
        return {}
    if not body or not all(isinstance(line, ast.AnnAssign) for line in body):
        return {}
    return {line.target.id: ast.unparse(line.annotation) for line in body}


def _assigned(source: str) -> list[str]:
    lines = ast.parse(source).body
    return [target.id for line in lines if isinstance(line, ast.Assign) for target in line.targets]


def project_root() -> Path:
    """The folder that holds `notebooks/` and `figures/`, whatever the working directory."""
    return Path(__file__).resolve().parent.parent


def show_figure(figure, dpi: int = 100) -> None:
    """Display a matplotlib figure once, as a small picture, and close it.

    Notebooks left to the inline backend show a figure twice, or as text, depending
    on when matplotlib was imported; and full-colour pictures make them large.
    """
    import matplotlib.pyplot as plt  # here, for the batch reads parameters without drawing
    from IPython.display import display
    from PIL import Image

    buffer = BytesIO()
    figure.savefig(buffer, dpi=dpi)
    plt.close(figure)
    display(Image.open(buffer).convert("RGB").quantize(256))
