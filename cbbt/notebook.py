"""Helpers of the notebooks: parameters, checked before work starts, and display of figures.

Papermill injects any name it is given and only warns about unknown ones. A
notebook of this kit calls `read_parameters(globals())` in the cell after its
parameters: a name that the parameters cell does not declare, or a value whose type
differs from its annotation, stops the notebook with the valid choices.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
import sys
import warnings
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

from cbbt.checks import read_as

WIDGET = "application/vnd.jupyter.widget-view+json"
INJECTED = "# Parameters"  # first line of the cell that papermill injects
TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict}


def read_parameters(namespace: dict) -> SimpleNamespace:
    """The notebook's checked parameters as a namespace.

    Args:
        namespace: the notebook's `globals()`; its `In` holds the cells run so far.

    The declared names are those of the last cell run that holds only annotated
    assignments; without `In`, as in a notebook run as a script, all annotated names
    of the module. Values are read by `cbbt.checks.read_as`.
    Raises NameError for an unknown name, TypeError for a value of the wrong type.
    """
    declared: dict[str, str] = {}
    injected: list[str] = []
    for source in namespace.get("In", ()):
        if source.lstrip().startswith(INJECTED):
            injected = _assigned(source)
        elif annotations := _annotated(source):
            declared, injected = annotations, []
    if not declared:  # plain Python has no `In`, and nbval leaves it empty
        module = sys.modules.get(namespace.get("__name__"))  # from Python 3.14 on it makes its annotations on access
        annotated = namespace.get("__annotations__") or getattr(module, "__annotations__", {})
        declared = {name: _text(kind) for name, kind in annotated.items()}
    if not declared:
        raise NameError("no parameters cell has been run: run the cells above this one first")
    _require_declared(injected, declared)
    return SimpleNamespace(**{name: _checked(name, namespace[name], declared[name]) for name in declared})


def check_parameters(notebook: Path, values: dict) -> None:
    """Raise what `notebook` would raise for these parameters: NameError or TypeError."""
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    (source,) = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    declared = _annotated(source)
    _require_declared(values, declared)
    for name in declared.keys() & values.keys():
        _checked(name, values[name], declared[name])


def _require_declared(names, declared: dict[str, str]) -> None:
    for name in names:
        if name not in declared and not name.startswith("PAPERMILL_"):  # its option --inject-paths
            near = difflib.get_close_matches(name, declared, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise NameError(f"unknown parameter {name!r}: {hint}the parameters are {', '.join(declared)}")


def _checked(name: str, value, annotation: str):
    # Papermill only lists parameters annotated in the first of these two ways.
    inner = re.fullmatch(r"(?:typing\.)?Optional\[(.+)\]|(.+) \| None", annotation)
    kind = TYPES[((inner[1] or inner[2]) if inner else annotation).split("[")[0]]
    return read_as(f"parameter {name}", value, kind | None if inner else kind)


def _text(annotation) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _annotated(source: str) -> dict[str, str]:
    """name → annotation, if the cell holds only annotated assignments."""
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
    """The folder that holds `notebooks/` and `figures/`, from any working directory."""
    return Path(__file__).resolve().parent.parent


def figures_folder(given: str, *tables: str) -> Path:
    """Where a notebook's figures go: the folder given; else `figures/` for the kit's own tables, or
    `results/explore/figures` for others.
    """
    return Path(given or project_root() / ("results/explore/figures" if any(tables) else "figures")).expanduser()


@contextmanager
def section(title: str = ""):
    """A part of a cell, below its title if it has one; a ValueError (tables that cannot be drawn) is printed in one line."""
    if title:
        print(f"— {title} —")
    try:
        yield
    except ValueError as error:
        print(f"not drawn: {error}")


def show_figure(figure, dpi: int = 200) -> None:
    """Display a matplotlib figure once, 100 pixels wide for each of its inches, and close it.

    The inline backend shows a figure twice, or as text, depending on when matplotlib was
    imported. A lower `dpi` keeps a notebook of many figures small. For a figure written by
    `save_figure`, the output's metadata name the files and their digests.
    """
    from IPython import display  # here, because the batch reads parameters without drawing
    from PIL import Image

    buffer, content = BytesIO(), BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # warned about once, when the figure was drawn
        figure.savefig(buffer, format="png", dpi=dpi)
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(figure)
    picture = Image.open(buffer).convert("RGB")
    picture.save(content, format="png", optimize=True)
    metadata = {"files": figure.files} if hasattr(figure, "files") else None
    display.display(display.Image(content.getvalue(), width=round(100 * picture.width / dpi)), metadata=metadata)


def show_finding(*sentences: str) -> None:
    """Display what the tables and figures above show, as Markdown: one sentence after the word "Finding", several as a list.

    Negative numbers get the minus sign of the figures.
    """
    from IPython import display  # here, for the batch reads parameters without drawing

    text = f"**Finding.** {sentences[0]}" if len(sentences) == 1 else "\n".join(f"- {each}" for each in sentences)
    display.display(display.Markdown(re.sub(r"(?<![\w.-])-(?=\d)", "−", text)))


def sliders(show, **controls) -> None:
    """Call `show` with controls for its arguments, as for `ipywidgets.interact`, in an interactive session.

    If a program runs the notebook (papermill, nbconvert, nbval), `show` is called once, with its defaults. JupyterLab
    names the cell in its request to the kernel; programs do not.
    """
    from IPython import get_ipython

    request = getattr(get_ipython(), "get_parent", dict)()  # plain Python has no shell, and IPython's shell no requests
    if request.get("metadata"):
        from ipywidgets import interact

        interact(show, **controls)
    else:
        show()


def remove_bars(*paths: str | Path) -> None:
    """Remove progress bars from executed notebooks, in place: a saved bar never moves again."""
    for path in map(Path, paths):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["metadata"].pop("widgets", None)
        for cell in notebook["cells"]:
            if "outputs" in cell:
                cell["outputs"] = [output for output in cell["outputs"] if WIDGET not in output.get("data", {})]
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
