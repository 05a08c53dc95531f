"""A grid on a SLURM of one node on loopback: a job is killed, the grid is whole all the same.

Skipped unless Debian's slurm-wlm and munge and the executor plugin are installed and
the tests run as root (`make check-slurm`). The daemons use ports, keys and folders
of their own, and end with the test.
"""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from cbbt.runs.grid import Grid

ROOT = Path(__file__).parent.parent
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
missing = [name for name in PROGRAMS if shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin") is None]
pytestmark = [
    pytest.mark.skipif(bool(missing), reason=f"no {', '.join(missing)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="SLURM's daemons are started as root"),
    pytest.mark.skipif(
        importlib.util.find_spec("snakemake_executor_plugin_slurm") is None, reason="no snakemake-executor-plugin-slurm"
    ),
]

CONF = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=6000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def cluster(tmp_path):
    """The environment in which sbatch and squeue reach a cluster of two processors."""
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o400)
    conf = CONF.format(host=socket.gethostname().split(".")[0], folder=folder, ports=free_ports(2))
    (folder / "slurm.conf").write_text(conf)
    # Snakemake's jobs start job steps without the submitting environment: only the usual place is looked at.
    usual = Path("/etc/slurm/slurm.conf")
    if usual.exists() or usual.is_symlink():
        pytest.skip(f"{usual} exists: this machine has a SLURM of its own")
    usual.parent.mkdir(exist_ok=True)
    usual.symlink_to(folder / "slurm.conf")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"}
    munge = [f"--{key}={folder / name}" for key, name in (
        ("key-file", "key"), ("socket", "munge.sock"), ("pid-file", "munged.pid"), ("log-file", "munged.log"),
        ("seed-file", "seed"),
    )]  # fmt: skip
    try:
        for command in (["munged", "--force", *munge], ["slurmctld"], ["slurmd"]):
            subprocess.run(command, env=environment, check=True, capture_output=True)
        for _ in range(60):
            state = subprocess.run(["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True)
            if state.stdout.strip() == "idle":
                break
            time.sleep(0.5)
        else:
            pytest.fail(f"the node is not idle: {state.stdout}{state.stderr}{(folder / 'slurmctld.log').read_text()[-2000:]}")
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True)
        for name in ("slurmd", "slurmctld", "munged"):
            if (folder / f"{name}.pid").exists():
                os.kill(int((folder / f"{name}.pid").read_text()), signal.SIGTERM)
        usual.unlink()


def jobs(environment) -> list[str]:
    """Identities of the running jobs."""
    command = ["squeue", "--noheader", "--states=RUNNING", "--format=%i"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


def test_a_grid_whose_job_is_killed_is_whole_with_every_run_once(cluster, tmp_path):
    folders = {key: str(tmp_path / key) for key in ("results", "tables", "figures")}
    values = {"datasets": ["digits", "shapes"], "methods": ["adapter"], "shots": [1], "seeds": [1, 2]}
    values |= {"settings": {"epochs": 200}} | folders
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "snakemake", "tables", "--profile", "configs/slurm", "--configfile", tmp_path / "grid.yaml"]
    command += ["--nolock", "--slurm-status-command", "squeue", "--slurm-no-account", "--latency-wait", "5"]
    command += ["--slurm-init-seconds-before-status-checks", "5", "--slurm-logdir", tmp_path / "logs"]
    command += ["--default-resources", "mem_mb=2000", "cpus_per_task=1", "runtime=10"]
    with (tmp_path / "snakemake.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=cluster, stdout=log, stderr=log)
    victim = None
    while process.poll() is None and victim is None:
        begun = list((tmp_path / "results").glob("runs/*"))
        running = jobs(cluster)
        if begun and running:
            victim = running[0]
            subprocess.run(["scancel", "--signal=KILL", victim], env=cluster, check=True)
        time.sleep(0.2)
    assert process.wait() == 0, (tmp_path / "snakemake.log").read_text()[-3000:]
    assert victim is not None
    grid = Grid.from_dict(values)
    wanted = sorted(config.run_id for cell in grid.cells() for config in grid.configs(cell))
    records = [json.loads(path.read_text())["run_id"] for path in (tmp_path / "results" / "runs").glob("*/record.json")]
    assert sorted(records) == wanted
    rows = (tmp_path / "tables" / "runs.csv").read_text().splitlines()[1:]
    assert sorted(row.split(",")[0] for row in rows) == wanted
    log = (tmp_path / "snakemake.log").read_text()
    assert victim in log and "Trying to restart job" in log
