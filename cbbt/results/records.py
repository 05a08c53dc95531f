"""Records of finished runs, read back and laid out as tidy tables.

A run's record is the file `RECORD` in its folder (see `cbbt.runs.experiment`).
"""

from __future__ import annotations

import json
from pathlib import Path

import lazy_loader

pd = lazy_loader.load("pandas")

RECORD = "record.json"


def load_records(folder: str | Path) -> list[dict]:
    """All finished runs under `folder`, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted(Path(folder).glob(f"*/{RECORD}"))]


def runs_table(records: list[dict]) -> pd.DataFrame:
    """One row per run: configuration, scores, queries, seconds, versions, commit."""
    rows = [
        {"run_id": record["run_id"]}
        | record["config"]
        | {"options": json.dumps(record["config"].get("options", {}))}
        | record["scores"]
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
    keys = ("dataset", "backbone", "method", "shots", "seed")
    rows = [{key: record["config"][key] for key in keys} | row for record in records for row in record["history"]]
    return pd.DataFrame(rows)
