"""The batch as `make reproduce` starts it: checked, alone on its results, reported at the end.

    python -m cbbt.runs.batch snakemake --cores 2 --configfile configs/default.yaml

Snakemake does the work (see the Snakefile); a batch that was killed leaves its locks
behind, and they are lifted here, but never those of a batch that lives.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cbbt.files import locked
from cbbt.results.records import RECORD, read_record_file
from cbbt.runs.grid import Grid
from cbbt.runs.report import report

WRITTEN_TO = ("XDG_CACHE_HOME", "JUPYTER_RUNTIME_DIR")  # by snakemake and the kernels, below the home if not set


def collect(grid: Grid) -> list[dict]:
    """The records of all runs of a grid, in its order.

    Raises ValueError, which counts and names them, if runs have none.
    """
    paths = [Path(grid.runs, config.run_id, RECORD) for cell in grid.cells() for config in grid.configs(cell)]
    if missing := [path for path in paths if not path.exists()]:
        raise ValueError(
            f"{len(missing)} of {len(paths)} runs have no record, first {missing[0]}: the notebooks made other runs than "
            "the grid asks for. Is notebook 3 as it was, apart from its parameters?"
        )
    return [read_record_file(path) for path in paths]


def require_home() -> None:
    """Raise ValueError, which says what to set, if programs of the batch could not write where they must."""
    if all(os.environ.get(name) for name in WRITTEN_TO):
        return
    try:
        with tempfile.TemporaryDirectory(dir=Path.home()):
            pass
    except OSError as error:
        raise ValueError(f"the home cannot be written ({error}): set {' and '.join(WRITTEN_TO)} to folders that can") from error


def run_alone(command: list[str], results: Path) -> int:
    """Run snakemake unless another batch is at the same results; its exit status.

    Raises ValueError if another one is.
    """
    mark = results / "batch.lock"  # holds the number of the process that is at work, or was when it was killed
    try:
        with locked(mark, wait=False):
            killed = bool(mark.read_text(encoding="utf-8"))
            mark.write_text(str(os.getpid()), encoding="utf-8")
            if killed:
                subprocess.run([*command, "--unlock"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            status = subprocess.run(command).returncode
            mark.write_text("", encoding="utf-8")
            return status
    except BlockingIOError as error:
        raise ValueError(
            f"a batch is at work on {results} (process {mark.read_text(encoding='utf-8')}): wait for it, or stop it"
        ) from error


def main(*command: str) -> int:
    grid_file = command[command.index("--configfile") + 1]
    try:
        grid = Grid.from_file(grid_file)
        grid.require_data()
        require_home()
        status = run_alone([sys.executable, "-m", *command], Path(grid.results))
    except (ValueError, TypeError, NameError) as error:
        print(error, file=sys.stderr)
        return 2
    report(grid)
    return status


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a console that lacks a character of a table
    sys.exit(main(*sys.argv[1:]))
