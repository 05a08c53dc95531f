"""Choice of settings by a search on validation, leaving one task out.

    python -m cbbt.runs.choice configs/search.yaml configs/search_peers.yaml > configs/chosen_peers.yaml

The candidates are a grid's variants; their scores are in its table of runs, evaluated on the
validation pools. A task gets the candidate with the highest mean over the other tasks, so no
label of a task takes part in its own choice; a first rule, the choice over all tasks, is for
tasks outside the search. Numbers of shots that were not searched use the choice of one that
was: `--serve 2=1,2,4 16=8,16`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import yaml

from cbbt.results.choice import VALIDATION, leave_one_out
from cbbt.results.tables import read_table
from cbbt.runs.grid import Grid


def candidates(grid: Grid) -> pd.DataFrame:
    """Mean validation accuracy over seeds, in percent, of each candidate: columns method, shots, variant, dataset, accuracy.

    Raises ValueError for a grid that is not evaluated on validation, or whose table lacks a run.
    """
    runs = read_table(Path(grid.tables) / "runs.csv").set_index("run_id")
    rows = []
    for cell in grid.cells():
        for config in grid.configs(cell):
            if config.judge != "validation":
                raise ValueError(f"settings are chosen on validation: {config.run_id} is judged on {config.judge}")
            if config.run_id not in runs.index:
                raise ValueError(f"{grid.tables}/runs.csv lacks {config.run_id}: make the table again")
            rows.append((config.method, config.shots, cell.variant, cell.dataset, runs[VALIDATION][config.run_id]))
    table = pd.DataFrame(rows, columns=["method", "shots", "variant", "dataset", "accuracy"])
    return table.groupby(["method", "shots", "variant", "dataset"], sort=False).accuracy.mean().reset_index()


def chosen_rules(grid: Grid, serve: dict[int, list[int]] | None = None) -> list[dict]:
    """Rules for `Grid.chosen`: for each method and number of shots the choice over all tasks, then a task's own if different.

    serve: number of shots that was searched → those that get its choice; only itself if not named.
    Raises ValueError if candidates of one method set different fields: a task's own rule could not undo the other.
    """
    rules = []
    for (method, shots), scores in candidates(grid).groupby(["method", "shots"], sort=False):
        settings = {
            variant: {name: value for name, value in grid.variants[variant].items() if name != "methods"}
            for variant in dict.fromkeys(scores.variant)
        }
        fields = {frozenset(values) for values in settings.values()}
        if len(fields) > 1:
            raise ValueError(f"the candidates of {method} must all set the same fields, got {sorted(map(sorted, fields))}")
        table = scores.pivot(index="variant", columns="dataset", values="accuracy").loc[list(settings)]
        place = {"method": method, "shots": (serve or {}).get(int(shots), int(shots))}
        overall, own = table.mean(axis=1).idxmax(), leave_one_out(table[list(dict.fromkeys(scores.dataset))])
        rules.append({"for": place, "set": settings[overall]})
        for variant in dict.fromkeys(own):
            if variant != overall:
                datasets = [dataset for dataset, chosen in own.items() if chosen == variant]
                rules.append({"for": place | {"dataset": datasets}, "set": settings[variant]})
    return rules


def main(*arguments: str) -> str:
    """The rules chosen from the grids in these files, as YAML; rules of later files override earlier ones."""
    at = arguments.index("--serve") if "--serve" in arguments else len(arguments)
    paths, served = arguments[:at], arguments[at + 1 :]
    serve = {int(one): [int(shots) for shots in many.split(",")] for one, many in (entry.split("=") for entry in served)}
    heading = f"# Made by `python -m cbbt.runs.choice {' '.join(arguments)}`; see cbbt/runs/choice.py.\n"
    rules = [rule for path in paths for rule in chosen_rules(Grid.from_file(path), serve)]
    return heading + "".join(f"- {yaml.safe_dump(rule, default_flow_style=True, sort_keys=False, width=10**6)}" for rule in rules)


if __name__ == "__main__":
    try:
        print(main(*sys.argv[1:]), end="")
    except (ValueError, TypeError, NameError, FileNotFoundError) as error:
        sys.exit(str(error))
