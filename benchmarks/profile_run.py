"""Profile of a run: start-up, loading, encoding, fitting, evaluation, saving.

    python benchmarks/profile_run.py [--dataset digits] [--methods adapter cbbt] [--shots 16] [--repeats 3]

Start-up is measured in new processes, for `import torch` and for the kit's own imports; the
stages are cumulative seconds of their functions, read by cProfile, first in a single run and
then in one that shares its workbench with an earlier run.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import subprocess
import sys
import tempfile
import time

import pandas as pd

import cbbt
from cbbt.runs.workbench import Workbench

STARTS = {"torch": "import torch", "the package": "import cbbt", "all that a run imports": "import cbbt.runs.experiment"}
STAGES = {  # stage → module's file, function that does it; the tower's and the judge's shares lie within the fit
    "load the model": ("models.py", "load_model"),
    "read the task": ("load.py", "load_task"),
    "encode images": ("features.py", "encode_views"),
    "fit": ("tuning.py", "tune"),
    "of it, the text tower": ("text_tower.py", "encode"),
    "judge": ("fitting.py", "accuracy_on"),
    "save": ("experiment.py", "_save"),
}


def start_table(repeats: int) -> pd.DataFrame:
    """Seconds from an empty process to the end of an import, medians; and over torch's own."""
    rows = {name: [] for name in STARTS}
    for _ in range(repeats):
        for name, code in STARTS.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            rows[name].append(time.perf_counter() - begun)
    table = pd.DataFrame({"seconds": {name: statistics.median(seconds) for name, seconds in rows.items()}})
    return table.assign(ratio=table.seconds / table.seconds["torch"])


def stage_seconds(config, folder: str, workbench: Workbench) -> dict[str, float]:
    """Seconds of each stage of one run, and of all of it."""
    profile = cProfile.Profile()
    profile.runcall(cbbt.run, config, folder, workbench=workbench)
    spent = {key: figures[3] for key, figures in pstats.Stats(profile).stats.items()}
    stages = {}
    for stage, (file, function) in STAGES.items():
        stages[stage] = sum(seconds for (path, _, name), seconds in spent.items() if path.endswith(file) and name == function)
    return stages | {"all": max(spent.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--methods", nargs="+", default=["adapter", "cbbt"])
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(start_table(options.repeats).round(2).to_string())
    for method in options.methods:
        workbench, columns = Workbench(), {}
        for seed, name in ((1, "by itself"), (2, "after another")):
            config = cbbt.RunConfig(options.dataset, method, shots=options.shots, seed=seed)
            with tempfile.TemporaryDirectory() as folder:
                columns[name] = stage_seconds(config, folder, workbench)
        print(f"\n{method} on {options.dataset}, {options.shots} shots\n{pd.DataFrame(columns).round(2).to_string()}")


if __name__ == "__main__":
    main()
