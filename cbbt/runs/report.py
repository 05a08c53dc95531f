"""The report of a batch: what failed and why, the accuracy tables, the paths of the figures.

`cbbt report configs/default.yaml` reads what the grid has made so far.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat

from cbbt.results.formatting import accuracy_caption, accuracy_table, shots_name, to_markdown
from cbbt.results.tables import read_table
from cbbt.runs.grid import Grid

# What papermill prints if a kernel lost its port to another, or the machine was too busy.
NEVER_STARTED = ("Address already in use", "Kernel didn't respond", "Kernel died before replying")


def failures(grid: Grid) -> list[str]:
    """A line for each notebook that started and did not finish: its name, the error, the path."""
    folder, lines = Path(grid.results) / "notebooks", []
    for path in sorted(folder.glob("*.ipynb")):
        try:
            notebook = nbformat.read(path, as_version=4)
        except (ValueError, OSError) as error:
            lines.append(f"{path.stem}: {path} cannot be read ({str(error).splitlines()[0]})")
            continue
        log = path.with_name(path.name + ".txt")  # what papermill printed
        reason = _error(notebook, log.read_text(encoding="utf-8", errors="replace") if log.exists() else "")
        if reason:
            lines.append(f"{path.stem}: {reason}  [{path}]")
    return lines


def _error(notebook, log: str) -> str:
    """Why an executed notebook stopped, in a line; empty if it did not."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"{output.ename}: {' '.join(output.evalue.split())}"
    if any(sign in log for sign in NEVER_STARTED):
        return "the kernel did not start: call again to retry"
    if "DeadKernelError" in log:  # the notebook itself then looks finished
        return "the kernel died: killed, perhaps out of memory"
    if notebook.metadata.get("papermill", {}).get("end_time") is None:
        return "stopped before its end, without an error: killed, or still running"
    return ""


def report(grid: Grid) -> None:
    """Print what failed, or, if nothing did, the tables of the grid and the paths of its figures."""
    failed = failures(grid)
    if failed:
        print(f"\n{len(failed)} notebooks did not finish; finished work is kept, and another call resumes from there:")
        print("\n".join(f"  {line}" for line in failed))
    table = Path(grid.tables) / "runs.csv"
    if failed or not table.exists():
        return
    for backbone, runs in read_table(table).groupby("backbone", sort=False):
        for shots in grid.shots:
            try:
                print(f"\n{to_markdown(accuracy_table(runs, shots), accuracy_caption(runs, shots))}")
            except ValueError as error:  # evaluated on validation, or several settings of one run
                print(f"\nNo table of test accuracies for {backbone} with {shots_name(shots)}: {error}")
    print(f"\nTables: {grid.tables}\nFigures:")
    for path in sorted(Path(grid.figures).glob("*.pdf")):
        print(f"  {path}  {path.with_suffix('.png')}")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # for consoles that cannot print a character of a table
    try:
        report(Grid.from_file(sys.argv[1]))
    except (ValueError, TypeError, NameError) as error:
        sys.exit(str(error))
