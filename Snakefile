# The batch: notebooks executed by papermill as a graph that knows what is missing.
#
#   snakemake -n                                   what would run
#   snakemake -c2                                  the embedded grid on two cores
#   snakemake -c8 --configfile configs/paper.yaml  another grid
#   snakemake -c2 results/default/cells/digits.16shot.default.csv    one cell
#   snakemake -c8 --resources gpu_slot=4           four GPUs on this machine, a cell on each
#
# A cell's output is its table of runs, written last. The runs' records lie beside
# it and are read back, not repeated, when a cell starts again after a kill.
# Executed notebooks are logs: they stay, readable, when a cell fails.

import base64
import re
import sys
from pathlib import Path
from shlex import quote

import yaml

from cbbt.results.records import curves_table, runs_table, targets_table
from cbbt.results.tables import write_table
from cbbt.runs.batch import collect
from cbbt.runs.config import RunConfig
from cbbt.runs.grid import Grid
from cbbt.runs.report import NEVER_STARTED


# A grid file stands for itself: the default one is read only where no other is named.
if not workflow.overwrite_configfiles:

    configfile: "configs/default.yaml"


try:
    GRID = Grid.from_dict(dict(config))
    GRID.require_data()
except (ValueError, TypeError, NameError) as error:
    sys.exit(str(error))
CELLS = {cell.name: cell for cell in GRID.cells()}
RESULTS, TABLES, FIGURES = GRID.results, GRID.tables, GRID.figures
JUDGED_ELSEWHERE = any(config.targets for cell in CELLS.values() for config in GRID.configs(cell))
HERE = Path(workflow.basedir)  # notebooks run elsewhere: they are given whole paths
WEIGHTS = "cbbt/mini_clip/mini_clip.safetensors"

# The figures that were drawn are listed in the file that says so. If one of them is gone, they are drawn again.
DRAWN = Path(RESULTS, "notebooks", "04_figures.done")
if DRAWN.exists() and not all(Path(line).exists() for line in DRAWN.read_text().splitlines() or [FIGURES]):
    DRAWN.unlink()


def papermill(**parameters):
    """Papermill's options for these parameters, safe against any quoting."""
    return "-b " + base64.b64encode(yaml.safe_dump(parameters).encode()).decode()


def cell_parameters(wildcards):
    """All parameters of notebook 3 that a grid decides, so that the notebook's own defaults play no part."""
    cell = CELLS[wildcards.cell]
    return papermill(
        dataset=cell.dataset,
        methods=list(cell.methods),
        shots=cell.shots,
        seeds=list(GRID.seeds),
        backbone=RunConfig.backbone,
        pretrained=RunConfig.pretrained,
        data_root=GRID.data_root,
        cache=str(HERE / GRID.cache) if GRID.cache else "",
        workers=GRID.workers,
        settings={method: GRID.settings_of(cell, method) for method in cell.methods},
        runs=str(HERE / GRID.runs),
        table=str(HERE / RESULTS / "cells" / f"{cell.name}.csv"),
        epochs_by_hand=1,
    )


def execute(prefix=""):
    """The shell command that executes a rule's notebook; once more if its kernel never started, having lost its port to another."""
    # Two runs beside each other: waiting threads must not spin on the other's core.
    notebook = (
        f"{prefix}env OMP_NUM_THREADS={{threads}} OMP_WAIT_POLICY=passive papermill {{input.notebook:q}} {{log:q}} "
        "{params.parameters} --log-level ERROR --no-progress-bar > {log:q}.txt 2>&1"
    )
    return f"{notebook} || (grep -qE {quote('|'.join(NEVER_STARTED))} {{log:q}}.txt && {notebook}) || (tail -n 25 {{log:q}}.txt; exit 1)"


# Each notebook that uses the model has a GPU to itself where there are any. The resource
# keeps those that would wait from starting; SLURM's own is `gpu` (configs/slurm).
ON_ONE_GPU = f"python {quote(str(HERE / 'cbbt/runs/gpus.py'))} "


localrules:
    all,
    tables,


rule all:
    input:
        str(DRAWN),


rule data_preparation:
    input:
        notebook="notebooks/01_data_preparation.ipynb",
        weights=WEIGHTS,
    output:
        f"{TABLES}/tasks.csv",
    log:
        f"{RESULTS}/notebooks/01_data_preparation.ipynb",
    params:
        parameters=papermill(
            tasks=list(GRID.datasets),
            settings=GRID.words(),
            augmentation=GRID.settings.get("augmentation", RunConfig.augmentation),
            data_root=GRID.data_root,
            table=str(HERE / TABLES / "tasks.csv"),
        ),
    resources:
        gpu_slot=1,
    shell:
        execute(ON_ONE_GPU)


rule gradient_approximation:
    input:
        notebook="notebooks/02b_analysis.ipynb",
        weights=WEIGHTS,
    output:
        f"{TABLES}/gradient_cosine.csv",
    log:
        f"{RESULTS}/notebooks/02b_analysis.ipynb",
    params:
        parameters=papermill(tables=str(HERE / TABLES), figures=str(HERE / FIGURES), **{"data_root": GRID.data_root} | GRID.gradient),
    resources:
        gpu_slot=1,
    priority: max(GRID.shots)
    shell:
        execute(ON_ONE_GPU)


# The cells of the most shots take longest: begun first, they leave no core idle at the end.
for shots in GRID.shots:

    rule:
        name:
            f"cell_{shots}shot"
        input:
            notebook="notebooks/03_training.ipynb",
            weights=WEIGHTS,
        output:
            f"{RESULTS}/cells/{{cell}}.csv",
        log:
            f"{RESULTS}/notebooks/{{cell}}.ipynb",
        wildcard_constraints:
            cell="|".join(re.escape(cell.name) for cell in CELLS.values() if cell.shots == shots),
        params:
            parameters=cell_parameters,
        resources:
            gpu_slot=1,
        priority: shots
        shell:
            execute(ON_ONE_GPU)


rule tables:
    input:
        expand(f"{RESULTS}/cells/{{cell}}.csv", cell=CELLS),
    output:
        runs=f"{TABLES}/runs.csv",
        curves=f"{TABLES}/curves.csv",
        **({"targets": f"{TABLES}/targets.csv"} if JUDGED_ELSEWHERE else {}),
    run:
        records = collect(GRID)
        write_table(runs_table(records), output.runs)
        write_table(curves_table(records), output.curves, digits=6)
        if JUDGED_ELSEWHERE:
            write_table(targets_table(records), output.targets, digits=6)


rule figures:
    input:
        f"{TABLES}/tasks.csv",
        f"{TABLES}/gradient_cosine.csv",
        rules.tables.output,
        notebook="notebooks/04_figures.ipynb",
    output:
        str(DRAWN),
    log:
        f"{RESULTS}/notebooks/04_figures.ipynb",
    params:
        parameters=papermill(tables=str(HERE / TABLES), figures=str(HERE / FIGURES)),
    run:
        shell(execute())
        drawn = sorted(Path(FIGURES).glob("*.p[dn][fg]"))
        Path(output[0]).write_text("\n".join(map(str, drawn)))
