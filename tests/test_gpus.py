"""One GPU per command, and none lost to a kill; no GPU is needed to see it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent


@pytest.fixture
def start(tmp_path):
    """Start a command that says which GPU it sees and lives until it is read out, on a machine of two GPUs."""
    running = []
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: A (UUID: a)'\necho 'GPU 1: B (UUID: b)'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    machine = {name: value for name, value in os.environ.items() if name not in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")}
    machine |= {"TMPDIR": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}

    def begin(**environment):
        tell = "import os, sys; print(os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); sys.stdin.read()"
        command = [sys.executable, ROOT / "cbbt" / "runs" / "gpus.py", sys.executable, "-S", "-c", tell]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(command, env=machine | environment, **pipes))
        return running[-1]

    yield begin
    for process in running:
        process.communicate()


def sees(process) -> str:
    return process.stdout.readline().strip()


def test_each_command_has_a_gpu_of_its_own_and_a_kill_frees_it(start):
    first, second = start(), start()
    taken = [sees(first), sees(second)]
    assert sorted(taken) == ["0", "1"]
    third = start()  # waits, for both are held
    second.kill()
    assert sees(third) == taken[1]


def test_gpus_that_the_user_chose_are_shared(start):
    assert sorted(sees(start(CUDA_VISIBLE_DEVICES="5, GPU-8a")) for _ in range(2)) == ["5", "GPU-8a"]


def test_jobs_of_slurm_keep_the_gpu_that_each_was_given(start):
    assert [sees(start(SLURM_JOB_ID=job, CUDA_VISIBLE_DEVICES="0")) for job in ("17", "18")] == ["0", "0"]


@pytest.mark.parametrize("nothing", ["", "-1", "NoDevFiles", "-1,0"])
def test_without_gpus_nothing_waits(start, nothing):
    assert [sees(start(PATH="/usr/bin:/bin", CUDA_VISIBLE_DEVICES=nothing)) for _ in range(3)] == [nothing] * 3


def test_the_batch_asks_for_a_gpu_per_cell(tmp_path):
    folders = {key: str(tmp_path / key) for key in ("results", "tables", "figures")}
    grid = {"datasets": ["digits"], "methods": ["adapter"], "shots": [1], "seeds": [1]} | folders
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    command = [sys.executable, "-m", "snakemake", "-n", "-p", "-c2", "--nolock", "--configfile", tmp_path / "grid.yaml"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rules = {block.split(":")[0]: block for block in shown.split("\nrule ")[1:]}
    asking = {name for name, block in rules.items() if "gpu_slot=1" in block and "gpus.py env OMP_NUM_THREADS=1" in block}
    assert asking == {"data_preparation", "gradient_approximation", "cell_1shot"} < set(rules)
