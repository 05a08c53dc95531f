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
from pathlib import Path

import yaml

from cbbt.runs.grid import Grid


configfile: "configs/default.yaml"


GRID = Grid.from_dict(dict(config))
CELLS = {cell.name: cell for cell in GRID.cells()}
RESULTS, TABLES, FIGURES = GRID.results, GRID.tables, GRID.figures
HERE = Path(workflow.basedir)  # notebooks run elsewhere: they are given whole paths
WEIGHTS = "cbbt/mini_clip/mini_clip.safetensors"


wildcard_constraints:
    cell="|".join(CELLS),


def papermill(**parameters):
    """Papermill's options for these parameters, safe against any quoting."""
    return "-b " + base64.b64encode(yaml.safe_dump(parameters).encode()).decode()


def cell_parameters(wildcards):
    cell = CELLS[wildcards.cell]
    return papermill(
        dataset=cell.dataset,
        methods=list(cell.methods),
        shots=cell.shots,
        seeds=list(GRID.seeds),
        data_root=GRID.data_root,
        cache=str(HERE / Path(GRID.cache).expanduser()) if GRID.cache else "",
        workers=GRID.workers,
        settings={method: GRID.settings_of(cell, method) for method in cell.methods},
        runs=str(HERE / RESULTS / "runs"),
        table=str(HERE / RESULTS / "cells" / f"{cell.name}.csv"),
    )


# Two runs beside each other: waiting threads must not spin on the other's core.
EXECUTE = (
    "env OMP_NUM_THREADS={threads} OMP_WAIT_POLICY=passive papermill {input.notebook} {log} {params.parameters} "
    "--log-level ERROR --no-progress-bar > {log}.txt 2>&1 || (tail -n 25 {log}.txt; exit 1)"
)
# Each notebook that asks the model has a GPU to itself where there are any. The resource
# keeps those that would wait from starting; SLURM's own is `gpu` (configs/slurm).
ON_ONE_GPU = f"python '{HERE}/cbbt/runs/gpus.py' "


localrules:
    all,
    tables,


rule all:
    input:
        f"{RESULTS}/notebooks/04_figures.done",


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
            tasks=list(GRID.datasets), data_root=GRID.data_root, table=str(HERE / TABLES / "tasks.csv")
        ),
    resources:
        gpu_slot=1,
    shell:
        ON_ONE_GPU + EXECUTE


rule gradient_approximation:
    input:
        notebook="notebooks/02_gradient_approximation.ipynb",
        weights=WEIGHTS,
    output:
        f"{TABLES}/gradient_cosine.csv",
    log:
        f"{RESULTS}/notebooks/02_gradient_approximation.ipynb",
    params:
        parameters=papermill(tables=str(HERE / TABLES), **GRID.gradient),
    resources:
        gpu_slot=1,
    shell:
        ON_ONE_GPU + EXECUTE


rule cell:
    input:
        notebook="notebooks/03_training.ipynb",
        weights=WEIGHTS,
    output:
        f"{RESULTS}/cells/{{cell}}.csv",
    log:
        f"{RESULTS}/notebooks/{{cell}}.ipynb",
    params:
        parameters=cell_parameters,
    resources:
        gpu_slot=1,
    shell:
        ON_ONE_GPU + EXECUTE


rule tables:
    input:
        expand(f"{RESULTS}/cells/{{cell}}.csv", cell=CELLS),
    output:
        runs=f"{TABLES}/runs.csv",
        curves=f"{TABLES}/curves.csv",
    run:
        import cbbt
        from cbbt.results.tables import write_table

        done = {record["run_id"]: record for record in cbbt.load_records(f"{RESULTS}/runs")}
        records = [done[config.run_id] for cell in GRID.cells() for config in GRID.configs(cell)]
        write_table(cbbt.runs_table(records), output.runs)
        write_table(cbbt.curves_table(records), output.curves, digits=6)


rule figures:
    input:
        f"{TABLES}/tasks.csv",
        f"{TABLES}/gradient_cosine.csv",
        rules.tables.output,
        notebook="notebooks/04_figures.ipynb",
    output:
        touch(f"{RESULTS}/notebooks/04_figures.done"),
    log:
        f"{RESULTS}/notebooks/04_figures.ipynb",
    params:
        parameters=papermill(tables=str(HERE / TABLES), figures=str(HERE / FIGURES)),
    shell:
        EXECUTE
