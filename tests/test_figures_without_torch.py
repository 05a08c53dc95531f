"""Every figure is drawn anew from the shipped tables by a Python that has no torch."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
# The notebooks of `make figures` that draw from tables alone.
NOTEBOOKS = {
    "04_figures": {"figures": "{out}"},
    "A2_collaboration": {"figures": "{out}"},
    "A3_fewer_queries": {"figures": "{out}"},
    "A5_ablations": {"figures": "{out}"},
    "A7_photographs": {"figures": "{out}"},
}
BLOCKED = """
import sys
class Blocked:
    def find_spec(name, path=None, target=None):
        if name in ("torch", "torchvision", "open_clip", "timm"):
            raise ModuleNotFoundError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked)
In = []  # as in a kernel: the cells run so far
"""


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_figures_need_no_torch(name, tmp_path):
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code" and not cell.source.startswith("# NBVAL_CHECK")]
    script = [BLOCKED]
    for cell in code:
        script += [f"In.append({cell.source!r})", cell.source]
        if "parameters" in cell.metadata.get("tags", []):
            script += [f"{key} = {value.format(out=tmp_path)!r}" for key, value in NOTEBOOKS[name].items()]
    (tmp_path / "notebook.py").write_text("\n".join(script))
    subprocess.run([sys.executable, "notebook.py"], cwd=tmp_path, env=os.environ | {"MPLBACKEND": "agg"}, check=True)
    drawn = {path.name for path in tmp_path.glob("*.pdf")}
    assert drawn and all((ROOT / "figures" / figure).exists() for figure in drawn)
