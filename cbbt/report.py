"""What `make reproduce` ends with: the accuracy tables and where the figures lie.

`python -m cbbt.report configs/default.yaml` reads the tables that the grid made.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from cbbt.grid import Grid
from cbbt.tables import accuracy_caption, accuracy_table, read_table, to_markdown


def main(grid_file: str) -> None:
    grid = Grid.from_dict(yaml.safe_load(Path(grid_file).read_text()))
    runs = read_table(Path(grid.tables) / "runs.csv")
    for shots in grid.shots:
        print(f"\n{to_markdown(accuracy_table(runs, shots), accuracy_caption(runs, shots))}")
    print(f"\nTables: {grid.tables}\nFigures:")
    for path in sorted(Path(grid.figures).glob("*.pdf")):
        print(f"  {path}  {path.with_suffix('.png')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
