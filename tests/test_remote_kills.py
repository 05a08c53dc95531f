"""Runs through a server in a process of its own, of which either side is killed (SIGKILL) at random moments.

However often, the record is that of the local run, to the last bit, and the server's ledger is that of an undisturbed one.
"""

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

import cbbt
from cbbt.box.server.accounts import ANYONE, Account, ServerLedger
from cbbt.box.server.process import ServerProcess

SAME = ("scores", "history", "queries", "evaluation_queries", "learned", "selection", "best_val_epoch", "n_judged")
WHOLE = {"dataset": "digits", "method": "cbbt", "shots": 16}
SHORT = WHOLE | {"epochs": 10, "q": 16}
RUN = """
import json, sys, cbbt
cbbt.run(cbbt.RunConfig(**json.loads(sys.argv[1])), sys.argv[2], save_every=0.2)
"""


def spent(server) -> dict[str, int]:
    ledger = ServerLedger(server.ledger)
    try:
        return ledger.spent(Account(ANYONE, {}))
    finally:
        ledger.close()


def begin(config: dict, out) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", RUN, json.dumps(config), str(out)], env=environment, stderr=subprocess.PIPE)


def finished(client: subprocess.Popen) -> bool:
    """Whether the run ended by itself, in peace."""
    assert client.wait(600) in (0, -signal.SIGKILL), client.stderr.read().decode()
    return client.returncode == 0


def kept(out, settings) -> dict:
    """The record of a run."""
    return json.loads((out / cbbt.RunConfig(**settings).run_id / "record.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """whether whole → the local run's record, and what a server counts of the same run when nobody is killed."""

    @functools.cache
    def both(whole: bool) -> tuple[dict, dict]:
        folder, settings = tmp_path_factory.mktemp("calm"), WHOLE if whole else SHORT
        local = cbbt.run(cbbt.RunConfig(**settings), device="cpu")
        with ServerProcess(folder, threads=1) as server:
            settings = settings | {"backbone": server.address}
            assert finished(begin(settings, folder / "runs"))
            counts = spent(server)
        record = kept(folder / "runs", settings)
        assert {name: record[name] for name in SAME} == {name: local[name] for name in SAME}
        return local, counts

    return both


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_cbbt_through_a_server_gives_the_record_of_the_local_run_to_the_last_bit(undisturbed, whole):
    local, counts = undisturbed(whole)
    asked = {grain: local["queries"][grain] + local["evaluation_queries"][grain] for grain in counts}
    assert counts == asked | {"loss_queries": 0}  # losses are computed from the features that are given


KILLS = pytest.mark.parametrize("whole, kills", [(False, 2), pytest.param(True, 20, marks=pytest.mark.soak)])


@KILLS
def test_a_server_that_is_killed_again_and_again_changes_nothing_and_charges_nobody_twice(undisturbed, tmp_path, whole, kills):
    local, counts = undisturbed(whole)
    draw, done = random.Random(kills), 0
    with ServerProcess(tmp_path, threads=1) as server:
        settings, number = (WHOLE if whole else SHORT) | {"backbone": server.address}, 0
        while done < kills:
            number += 1
            client = begin(settings, tmp_path / f"runs{number}")
            while client.poll() is None and done < kills:
                time.sleep(draw.uniform(0.3, 3.0))
                if client.poll() is None:
                    server.kill()
                    done += 1
                    server.start()
            assert finished(client)
            record = kept(tmp_path / f"runs{number}", settings)
            assert {name: record[name] for name in SAME} == {name: local[name] for name in SAME}
        assert spent(server) == {grain: number * count for grain, count in counts.items()}


@KILLS
def test_a_client_that_is_killed_again_and_again_ends_with_the_same_record_and_pays_once(undisturbed, tmp_path, whole, kills):
    local, counts = undisturbed(whole)
    draw, done = random.Random(100 + kills), 0
    with ServerProcess(tmp_path, threads=1) as server:
        settings, number = (WHOLE if whole else SHORT) | {"backbone": server.address}, 0
        while done < kills:
            number += 1
            out, ended = tmp_path / f"runs{number}", False
            while not ended:
                client = begin(settings, out)
                if done < kills:
                    time.sleep(draw.uniform(3, 12 if whole else 6))  # torch alone takes seconds to import
                    if client.poll() is None:
                        client.kill()
                        done += 1
                ended = finished(client)
            record = kept(out, settings)
            assert {name: record[name] for name in SAME} == {name: local[name] for name in SAME}
        assert spent(server) == {grain: number * count for grain, count in counts.items()}
