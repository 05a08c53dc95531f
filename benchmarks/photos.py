"""Benchmark of one cell of the grid on photographs: seconds for its features and its runs on this machine.

    python benchmarks/photos.py DATA [--images 1000] [--cache results/features] [--out figures/data]

Encodes images of EuroSAT's test split with the photo box, then fits and evaluates CBBT and CBBT+
with 16 shots as in configs/photos.yaml, with cached features (a first run fills the cache).
Writes and prints `speed_photos.csv`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd

import cbbt
from cbbt.data.features import encode_items
from cbbt.results.tables import write_table
from cbbt.runs.experiment import device_name
from cbbt.runs.grid import Grid

ROOT = Path(__file__).parent.parent


def photos_table(root: str, images: int, cache: str) -> pd.DataFrame:
    """Seconds and queries of each part: columns part, seconds, images, class_prompts, device."""
    grid = Grid.from_file(ROOT / "configs" / "photos.yaml", {"chosen": str(ROOT / "configs" / "chosen_photos.yaml")})
    box = cbbt.load_black_box("photo")
    items = cbbt.load_task("eurosat", root=root).test[:images]
    begun = time.perf_counter()
    encode_items(box, items, progress=True)
    rows = [{"part": "features", "seconds": time.perf_counter() - begun, **box.ledger.counts}]
    configs = {
        config.method: config
        for cell in grid.cells()
        for config in grid.configs(cell)
        if (config.dataset, config.shots, config.seed) == ("eurosat", 16, 1) and config.method in ("cbbt", "cbbt_plus")
    }
    for name, config in configs.items():
        cbbt.run(config, root=root, cache=cache, progress=True)  # fills the cache
        begun = time.perf_counter()
        record = cbbt.run(config, root=root, cache=cache)
        rows.append({"part": f"a run of {name}", "seconds": time.perf_counter() - begun, **record["queries"]})
    table = pd.DataFrame(rows).assign(device=device_name(box.device))
    return table[["part", "seconds", "images", "class_prompts", "device"]].round({"seconds": 1})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="the folder that holds eurosat/")
    parser.add_argument("--images", type=int, default=1000, help="number of test images to encode")
    parser.add_argument("--cache", default=str(ROOT / "results" / "features"), help="folder of image features")
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "data")
    arguments = parser.parse_args()
    table = photos_table(arguments.root, arguments.images, arguments.cache)
    write_table(table, arguments.out / "speed_photos.csv")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
