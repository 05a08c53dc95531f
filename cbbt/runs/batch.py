"""The batch that `make reproduce` starts: checked first, locked while it runs, reported at the end.

    python -m cbbt.runs.batch snakemake --cores 2 --configfile configs/default.yaml
    python -m cbbt.runs.batch --download snakemake --cores 2 --configfile GRID --config data_root=DIR

Snakemake does the work (see the Snakefile). Locks that a killed batch left behind are
removed, but never those of a running one. With `--download`, missing data of the grid's
benchmarks are downloaded first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from itertools import takewhile
from pathlib import Path

from snakemake.cli import parse_config

from cbbt.data.cards import CARDS
from cbbt.data.check import check_data
from cbbt.data.download import download_data
from cbbt.data.task import DataError
from cbbt.files import locked
from cbbt.results.records import RECORD, read_record_file
from cbbt.runs.grid import Grid
from cbbt.runs.report import report

WRITTEN_TO = ("XDG_CACHE_HOME", "JUPYTER_RUNTIME_DIR")  # by snakemake and the kernels, below the home if not set


def collect(grid: Grid) -> list[dict]:
    """The records of all runs of a grid, in its order.

    Raises ValueError, which counts and names them, for runs without a record.
    """
    paths = [Path(grid.runs, config.run_id, RECORD) for cell in grid.cells() for config in grid.configs(cell)]
    if missing := [path for path in paths if not path.exists()]:
        raise ValueError(
            f"{len(missing)} of {len(paths)} runs have no record, first {missing[0]}: the notebooks made other runs than "
            "the grid needs. Was notebook 3 changed, apart from its parameters?"
        )
    return [read_record_file(path) for path in paths]


def require_home() -> None:
    """Raise ValueError, which says what to set, if programs of the batch cannot write to their folders."""
    if all(os.environ.get(name) for name in WRITTEN_TO):
        return
    try:
        with tempfile.TemporaryDirectory(dir=Path.home()):
            pass
    except OSError as error:
        raise ValueError(f"cannot write to the home ({error}): set {' and '.join(WRITTEN_TO)} to folders that can") from error


def run_alone(command: list[str], results: Path) -> int:
    """Run snakemake unless another batch works on the same results; its exit status.

    Raises ValueError if another one does.
    """
    mark = results / "batch.lock"  # holds the id of the running process, or of a killed one
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
            f"another batch is running on {results} (process {mark.read_text(encoding='utf-8')}): wait for it, or stop it"
        ) from error


def grid_of(command: list[str]) -> Grid:
    """The grid of snakemake's `--configfile`, with the keys that `--config key=value …` changes, as the Snakefile sees it."""
    changes = command[command.index("--config") + 1 :] if "--config" in command else []
    changes = parse_config(list(takewhile(lambda entry: not entry.startswith("-"), changes)))
    return Grid.from_file(command[command.index("--configfile") + 1], changes)


def fetch_missing(grid: Grid) -> None:
    """Download what the grid's benchmarks lack, and look for every image of their splits.

    Raises `DataError` for data that cannot be downloaded, and for a benchmark with missing images.
    """
    names = [name for name in grid.datasets if name in CARDS]
    for name in names:
        download_data(name, grid.data_root)
    for found in check_data(grid.data_root, names).itertuples() if names else ():
        if found.state != "ready":
            counted = found.note or f"{found.present} of {found.expected} images, without {', '.join(found.missing)}"
            images = CARDS[found.dataset].image_root(grid.data_root)
            raise DataError(f"{found.dataset} is {found.state}: {counted}. {found.todo} Or move {images} away and call again.")


def main(*arguments: str) -> int:
    command = [argument for argument in arguments if argument != "--download"]
    try:
        grid = grid_of(command)
        if "--download" in arguments:
            fetch_missing(grid)
        grid.require_data()
        require_home()
        status = run_alone([sys.executable, "-m", *command], Path(grid.results))
    except (ValueError, TypeError, NameError) as error:
        print(error, file=sys.stderr)
        return 2
    report(grid)
    return status


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # for consoles that cannot print a character of a table
    sys.exit(main(*sys.argv[1:]))
