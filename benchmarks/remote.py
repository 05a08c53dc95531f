"""Benchmark of a served box against a local one: network overhead, and many clients at once.

    python benchmarks/remote.py [--tables remote_wire remote_load remote_pixels] [--seconds 20] [--out figures/data]

Everything runs on this machine, over loopback; RN50 has random weights, because speed does not
depend on their values. Compared calls take turns. Writes and prints

- `remote_wire.csv`: one query of 65 prompt sets through a server: seconds, those of them within the model, what the
  client waits in addition (`overhead_ms`, and its share of the total), and the bytes in both directions.
- `remote_load.csv`: class prompts per second of eight concurrent client processes, against one process with a
  local box before and after; with requests answered one by one, and joined (`--join`). `spread` is the most that a
  client got over the least.
- `remote_pixels.csv`: how far a batch of images shrinks under the compression of the wire.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_sample_image
from torch.nn import functional as F

from cbbt.box.blackbox import BlackBox, load_black_box
from cbbt.box.ledger import Ledger
from cbbt.box.server.doors import Limits
from cbbt.box.server.serve import serve
from cbbt.box.wire import compressed, pack

SETS = 65  # q = 64 directions and the point itself
CLIENTS = 8
NAMES = [f"the letter {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
MODELS = {"mini": "default", "photo": "default", "RN50": None}


@contextlib.contextmanager
def server(backbone: str, join: int = 0, tell: bool = False):
    """The address of `backbone` served in a child process, and its standard output: with `tell`, seconds within the model."""
    call = [sys.executable, __file__, "--serve", backbone, "--join", str(join), *(["--tell"] if tell else [])]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([*call, "--out", folder], stdout=subprocess.PIPE, text=True)
        try:
            yield process.stdout.readline().split(" at ")[1].split()[0], process.stdout
        finally:
            process.kill()
            process.wait()


def timed_server(backbone: str, join: int, folder: Path, tell: bool) -> None:
    """Serve `backbone`; for `tell`, the seconds of each query of prompts within the model go to standard output."""
    encode = BlackBox._prompts

    def timed(self, *question):
        begun = time.perf_counter()
        features = encode(self, *question)
        print(time.perf_counter() - begun, flush=True)
        return features

    if tell:
        BlackBox._prompts = timed
    serve(backbone, MODELS[backbone], port=0, ledger=folder / "ledger.sqlite", limits=Limits(join=join))


def contexts(box: BlackBox, sets: int) -> torch.Tensor:
    return torch.randn(sets, 1, box.context_dim, generator=torch.Generator().manual_seed(0))


def names(classes: int) -> list[str]:
    """`classes` different class names, made of words that all models know."""
    return [f"{NAMES[n % 26]} {NAMES[n // 26]}" for n in range(classes)]


def wire_table(repeats: int) -> pd.DataFrame:
    rows = []
    for backbone in MODELS:
        with server(backbone, tell=True) as (address, told):
            box = load_black_box(address, device="cpu")
            for classes in (10, 100):
                point, words, pairs = contexts(box, SETS), names(classes), []
                for _ in range(repeats + 1):
                    begun = time.perf_counter()
                    box.encode_prompts(point, words)
                    pairs.append((time.perf_counter() - begun, float(told.readline())))
                total, model = np.array(pairs[1:]).T  # without the warm-up turn
                rows.append(
                    {
                        "backbone": backbone,
                        "classes": classes,
                        "sets": SETS,
                        "seconds_model": np.median(model),
                        "seconds": np.median(total),
                        "overhead_ms": 1000 * np.median(total - model),
                        "share": np.median(1 - model / total),
                        "bytes_up": len(pack({"contexts": point}, {"class_names": words, "position": "end"})),
                        "bytes_down": len(pack({"features": torch.zeros(SETS, classes, box.embed_dim)})),
                    }
                )
    return pd.DataFrame(rows)


def answered(box: BlackBox, sets: int, seconds: float) -> float:
    """Class prompts per second, in consecutive queries for `seconds` seconds."""
    point, words = contexts(box, sets), names(10)
    box.encode_prompts(point, words)
    box = box.with_ledger(Ledger())
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        box.encode_prompts(point, words)
    return box.ledger.counts["class_prompts"] / (time.perf_counter() - begun)


def client(address: str, sets: int, seconds: float, ready, told) -> None:
    torch.set_num_threads(1)
    box = load_black_box(address, device="cpu")
    ready.wait()
    told.put(answered(box, sets, seconds))


def load_table(seconds: float) -> pd.DataFrame:
    rows, spawn = [], multiprocessing.get_context("spawn")
    local = load_black_box("RN50", None, device="cpu")
    for sets in (1, 17):
        for join in (0, 256):
            before = answered(local, sets, seconds)
            with server("RN50", join) as (address, _):
                ready, told = spawn.Barrier(CLIENTS), spawn.Queue()
                clients = [spawn.Process(target=client, args=(address, sets, seconds, ready, told)) for _ in range(CLIENTS)]
                [each.start() for each in clients]
                rates = [told.get(timeout=600) for _ in clients]
                [each.join() for each in clients]
            alone = (before + answered(local, sets, seconds)) / 2
            rows.append(
                {
                    "backbone": "RN50",
                    "sets": sets,
                    "classes": 10,
                    "join": join,
                    "clients": CLIENTS,
                    "prompts_local": alone,
                    "prompts_served": sum(rates),
                    "ratio": sum(rates) / alone,
                    "spread": max(rates) / min(rates),
                }
            )
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def pixels_table() -> pd.DataFrame:
    """Crops of the two photographs that scikit-learn ships, as the models read them."""
    rows = []
    for backbone in ("mini", "photo"):
        box, size = load_black_box(backbone, device="cpu"), 224
        photo = np.concatenate([load_sample_image(name)[:400, :600] for name in ("china.jpg", "flower.jpg")])
        crops = torch.from_numpy(photo).permute(2, 0, 1).unfold(1, size, 44).unfold(2, size, 53).flatten(1, 2).movedim(1, 0)[:64]
        pixels = F.interpolate(crops / 255, box.image_size, mode="area") if box.image_size != size else crops / 255
        pixels = (pixels.mul(255).round() / 255 - 0.5) / 0.5
        rows.append({"what": f"64 images of {backbone}"} | shrinking(pack({"pixels": pixels}, {"normalize": True})))
    features = F.normalize(torch.randn(650, 1024, generator=torch.Generator().manual_seed(0)), dim=-1)
    rows.append({"what": "650 features of RN50"} | shrinking(pack({"features": features})))
    return pd.DataFrame(rows)


def shrinking(body: bytes) -> dict[str, float]:
    begun = time.perf_counter()
    shrunk = compressed(body)
    return {"bytes": len(body), "compressed": len(shrunk), "ms": 1000 * (time.perf_counter() - begun)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = ["remote_wire", "remote_load", "remote_pixels"]
    parser.add_argument("--tables", nargs="+", choices=tables, default=tables)
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds per turn of the load table")
    parser.add_argument("--repeats", type=int, default=7, help="number of turns of the wire table")
    parser.add_argument("--out", type=Path, default=Path("figures/data"))
    parser.add_argument("--serve", choices=MODELS, help=argparse.SUPPRESS)  # these three: the benchmark calls itself
    parser.add_argument("--tell", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--join", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return timed_server(options.serve, options.join, options.out, options.tell)
    measure = {
        "remote_wire": lambda: wire_table(options.repeats),
        "remote_load": lambda: load_table(options.seconds),
        "remote_pixels": pixels_table,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.tables:
        table = measure[name]()
        table.to_csv(options.out / f"{name}.csv", index=False)
        print(f"\n{name}\n{table.to_string(index=False)}", flush=True)


if __name__ == "__main__":
    main()
