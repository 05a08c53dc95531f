"""Benchmark of prompt encoding and of whole steps, against the necessary arithmetic.

    python benchmarks/speed.py [--backbones RN50 ViT-B-16] [--classes 10 100 1000]
        [--contexts 1 4 16] [--directions 64] [--repeats 3] [--memory 10 100 1000]
        [--device cpu] [--compile] [--tables speed_text ...] [--out figures/data]

Weights are random: speed does not depend on their values. Compared calls take turns,
after a warm-up turn; a ratio is the median of the turns' ratios, because a machine's
speed changes more between turns than within one. Writes and prints
`speed_text.csv`, `speed_step.csv` (against the released loop), `speed_plan.csv` (a
run of the paper's grid), `speed_run.csv` (runs of the embedded profile),
`speed_memory.csv`, `speed_plus.csv` (a step of CBBT+) and `speed_scaling.csv`.

- *padded* is open_clip's own `encode_text` path at the full 77 tokens.
- *cut* is the same path cut right after the last end-of-text token.
- *tower* is `cbbt.box.text_tower`.
- *share of matmul* is the rate of the tower's necessary operations over the rate of
  bare matrix products in the same turn: those of its layers (queries-keys-values, output,
  both of the MLP, one pass through all layers), on as many rows as the tower takes at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from runs import plan_table, run_table
from steps import memory_table, plus_table, scaling_table, step_table
from text_encoding import text_table

TABLES = ["speed_step", "speed_plan", "speed_run", "speed_scaling", "speed_memory", "speed_plus", "speed_text"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["RN50", "ViT-B-16"])
    parser.add_argument("--classes", nargs="+", type=int, default=[10, 100, 1000])
    parser.add_argument("--contexts", nargs="+", type=int, default=[1, 4, 16], help="context lengths M")
    parser.add_argument("--directions", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", nargs="+", type=int, default=[10, 100], help="classes of the memory table; 1000: 8 minutes")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES, help="which tables to measure")
    parser.add_argument("--compile", action="store_true", help="measure the tower under torch.compile too (column over_eager)")
    parser.add_argument("--out", type=Path, default=Path("figures/data"))
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    options.out.mkdir(parents=True, exist_ok=True)
    first = options.backbones[0]
    measure = {
        "speed_step": lambda: step_table(first, 16, options.repeats, device),
        "speed_plan": lambda: plan_table(options.backbones, options.repeats, device),
        "speed_run": lambda: run_table(options.repeats, device),
        "speed_scaling": lambda: scaling_table(first, options.repeats, device),
        "speed_memory": lambda: memory_table(first, options.memory, device),
        "speed_plus": lambda: plus_table(first, options.memory, device),
        "speed_text": lambda: text_table(
            options.backbones, options.classes, options.contexts, options.directions, options.repeats, device, options.compile
        ),
    }
    for name in options.tables:
        with torch.set_grad_enabled(
            name in ("speed_run", "speed_plus")
        ):  # whole runs train an adapter, the local model is descended on
            table = measure[name]()
        table.to_csv(options.out / f"{name}.csv", index=False)
        print(f"\n{name}\n{table.to_string(index=False)}", flush=True)


if __name__ == "__main__":
    main()
