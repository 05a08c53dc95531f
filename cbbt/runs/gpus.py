"""Assignment of GPUs: each of several commands on one machine gets its own.

    python cbbt/runs/gpus.py papermill …    the command sees one GPU, which no other such command has

Without GPUs the command runs unchanged. It holds a lock file while it runs, and the
system releases the lock with the process, so a kill leaves none behind. Parallel
batches share the locks; a SLURM job chooses among the GPUs that it was given. Run as a
file, this loads no torch and starts at once.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NO_GPU = ("-1", "NoDevFiles", "none", "void")  # what users, SLURM and container runtimes write for it


def visible_gpus(environment) -> list[str]:
    """Names of the GPUs that a process may use: those of CUDA_VISIBLE_DEVICES, or all of the machine."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = filter(None, map(str.strip, chosen.split(",")))
        return list(itertools.takewhile(lambda name: name not in NO_GPU, names))  # CUDA, too, stops at the first
    if shutil.which("nvidia-smi", path=environment.get("PATH")) is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], env=environment, capture_output=True, text=True)
    return [str(index) for index in range(listed.stdout.count("\nGPU ") + listed.stdout.startswith("GPU "))]


def take(names: list[str], folder: Path) -> str:
    """Wait for a free GPU and hold it until this process, or the one it becomes by exec, ends; its name."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for name in names:
            lock = os.open(folder / name.replace("/", "-"), os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
            else:
                os.set_inheritable(lock, True)  # kept open, and so locked, after exec
                return name
        time.sleep(0.5)


def main(*command: str) -> None:
    names = visible_gpus(os.environ)
    if names:
        job = os.environ.get("SLURM_JOB_ID", "local")  # each job of a node may number its GPUs from 0
        os.environ["CUDA_VISIBLE_DEVICES"] = take(names, Path(tempfile.gettempdir()) / f"cbbt-gpus-{os.getuid()}-{job}")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
