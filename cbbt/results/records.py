"""Records of finished runs, read into tidy tables.

A run's record is the file `RECORD` in its folder (see `cbbt.runs.experiment`).
"""

from __future__ import annotations

import json
from pathlib import Path

import lazy_loader

pd = lazy_loader.load("pandas")

RECORD = "record.json"
REQUIRED = ("run_id", "config", "scores", "history", "queries", "seconds", "versions", "commit", "device")


def read_record_file(path: str | Path) -> dict:
    """The record in one file, strict JSON with every entry of `REQUIRED`.

    Raises ValueError, which names the file and what to do, for one that is empty, truncated or lacks an entry.
    """
    path = Path(path).expanduser().absolute()
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): delete this file and run again") from error
    if missing := [key for key in REQUIRED if not isinstance(record, dict) or key not in record]:
        raise ValueError(f"{path} lacks {', '.join(missing)}: delete this file and run again")
    return record


def load_records(folder: str | Path) -> list[dict]:
    """All finished runs under `folder`, in the order of their names.

    Raises FileNotFoundError for a folder without any record, ValueError for an invalid one (`read_record_file`).
    """
    folder = Path(folder).expanduser().absolute()
    paths = sorted(folder.glob(f"*/{RECORD}"))
    if not paths:
        what = f"holds no <run>/{RECORD}" if folder.is_dir() else "is not a folder"
        raise FileNotFoundError(f"{folder} {what}: expected a folder of runs, such as results/default/runs")
    return [read_record_file(path) for path in paths]


def _refuse(constant: str):
    raise ValueError(f"{constant} is not a JSON number")


def runs_table(records: list[dict]) -> pd.DataFrame:
    """One row per run: configuration, scores, queries, seconds, versions, commit."""
    rows = [
        {"run_id": record["run_id"]}
        | record["config"]
        | {"dataset": _task(record)}
        | {"options": json.dumps(record["config"].get("options", {}))}
        | {"targets": ", ".join(record["config"].get("targets", []))}
        | record["scores"]
        | {"looks": len(record["history"])}  # number of models from which the best on the evaluation split was chosen
        | record["queries"]
        | {"fit_seconds": round(record["seconds"]["fit"], 2), "n_judged": record["n_judged"]}
        | {key: record.get(key) for key in ("learned", "peak_megabytes")}
        | {f"{name}_version": number for name, number in record["versions"].items()}
        | {"commit": record["commit"], "device": record["device"]}
        for record in records
    ]
    return pd.DataFrame(rows)


def curves_table(records: list[dict]) -> pd.DataFrame:
    """One row per run and epoch: the histories, keyed by data set, method, shots and seed."""
    keys = ("backbone", "method", "shots", "seed")
    return pd.DataFrame(
        [
            {"dataset": _task(record)} | {key: record["config"][key] for key in keys} | row
            for record in records
            for row in record["history"]
        ]
    )


def targets_table(records: list[dict]) -> pd.DataFrame:
    """One row per run and test set: keys of the run, target, accuracy, ece, zero_shot, travels, n_judged.

    The target "own" is the run's own test split. Empty if no run has targets.
    """
    keys = ("backbone", "method", "shots", "seed", "classes", "service")
    return pd.DataFrame(
        [
            {"run_id": record["run_id"], "dataset": _task(record)}
            | {key: record["config"][key] for key in keys}
            | {"target": name}
            | scores
            for record in records
            for name, scores in record.get("targets", {}).items()
        ]
    )


def _task(record: dict) -> str:
    """The data set's name: for a folder its own name, not its path."""
    return record.get("task", record["config"]["dataset"])
