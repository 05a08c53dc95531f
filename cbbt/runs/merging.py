"""Merging of records computed on several machines.

A run has the same name on every machine, so the records of a grid may be made on
several and merged afterwards. Inconsistent records are refused before the first
file is copied.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from cbbt.files import whole_file
from cbbt.results.records import RECORD, read_record_file
from cbbt.runs.config import RunConfig

# Entries that two records of one run must share; time, place and versions may differ.
RESULT = ("scores", "history", "queries", "targets")


def merge_records(sources, into: str | Path) -> list[str]:
    """Copy the finished runs in the folders `sources` into the folder `into`.

    Every record is checked first: it must be complete, with a valid configuration that
    matches its name, and scores from 0 to 100. A run that is already in `into` must
    have the same scores, history, queries and targets; it is not copied again.

    Returns the names of the runs that were copied, in order. Raises ValueError for
    a record that is malformed, or differs from another of the same run (names both
    files and the field), and FileNotFoundError for a source without any record;
    then nothing has been copied.
    """
    into = Path(into).expanduser()
    known: dict[str, tuple[Path, dict]] = {}
    for path in sorted(into.glob(f"*/{RECORD}")):
        known[path.parent.name] = (path, read_record(path))
    new = []
    for source in map(Path, [sources] if isinstance(sources, (str, Path)) else sources):
        paths = sorted(source.expanduser().glob(f"*/{RECORD}"))
        if not paths:
            raise FileNotFoundError(f"{source} holds no <run>/{RECORD}: expected a folder of runs, such as results/default/runs")
        for path in paths:
            record = read_record(path)
            if record["run_id"] in known:
                _require_same(path, record, *known[record["run_id"]])
            else:
                known[record["run_id"]] = (path, record)
                new.append(record["run_id"])
    for name in new:
        with whole_file(into / name / RECORD) as partial:
            shutil.copyfile(known[name][0], partial)
    return new


def read_record(path: Path) -> dict:
    """The checked record in `path`; ValueError says what is wrong with it."""
    record = read_record_file(path)
    try:
        config = RunConfig.from_dict(record["config"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} has no valid configuration: {error}") from error
    for name in (record["run_id"], path.parent.name):
        if name != config.run_id:
            raise ValueError(f"{path} has the name {name}, but its configuration is that of {config.run_id}")
    for name, score in record["scores"].items():
        if not isinstance(score, (int, float)) or not math.isfinite(score) or not 0 <= score <= 100:
            raise ValueError(f"{path}: {name} should be a percentage, got {score!r}")
    return record


def _require_same(path: Path, record: dict, other_path: Path, other: dict) -> None:
    differing = [key for key in RESULT if record.get(key) != other.get(key)]
    if differing:
        raise ValueError(f"two records of {record['run_id']} differ in {', '.join(differing)}: {path} and {other_path}; keep one")
