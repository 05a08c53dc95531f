"""Benchmark of whole runs: one of the paper's grid from its parts, and those of the embedded profile from start to end."""

from __future__ import annotations

import pandas as pd
import torch
import torch.nn.functional as F
from text_encoding import class_names
from timing import clock

import cbbt
from cbbt.box.blackbox import load_black_box
from cbbt.gradients.estimators import estimate_gradient
from cbbt.runs.experiment import device_name


def plan_table(backbones, repeats, device) -> pd.DataFrame:
    """Cost of one run of the paper's grid: EuroSAT at 16 shots, q = 256, 150 epochs with a new view each.

    Counts: 10 classes · 16 shots / 32 = 5 steps an epoch; 150 · 160 views, 40
    validation and 8100 test images. Seconds from a whole step and a batch of 64 images.
    """
    steps, images = 150 * 5, 150 * 160 + 40 + 8100
    rows = []
    for backbone in backbones:
        box = load_black_box(backbone, None, device=str(device))
        names, context = class_names(10), box.token_embeddings("a")
        features = F.normalize(torch.randn(32, box.embed_dim, device=device), dim=-1)
        labels = torch.arange(32, device=device) % 10
        pixels = torch.randn(64, 3, box.image_size, box.image_size)

        def step():
            estimate_gradient(
                lambda contexts: box.losses(box.encode_prompts(contexts, names), features, labels),
                context, q=256, generator=torch.Generator().manual_seed(0),
            )  # fmt: skip

        seconds = clock({"step": step, "images": lambda: box.encode_images(pixels)}, repeats, device)
        rate = len(pixels) / seconds["images"]
        rows.append(
            {"backbone": backbone, "device": device_name(device), "seconds_per_step": round(seconds["step"], 3),
             "images_per_second": round(rate, 1), "minutes_prompts": round(steps * seconds["step"] / 60, 1),
             "minutes_images": round(images / rate / 60, 1)}
        )  # fmt: skip
    return pd.DataFrame(rows)


def run_table(repeats, device) -> pd.DataFrame:
    """Whole runs of the embedded profile: digits at 16 shots, one seed, without the start-up of Python."""
    calls = {
        name: (lambda name=name: cbbt.run(cbbt.RunConfig("digits", name), device=str(device)))
        for name in ("zero_shot", "adapter", "cbbt", "cbbt_plus")
    }
    seconds = clock(calls, repeats, device)
    queries = {name: call()["queries"]["class_prompts"] for name, call in calls.items()}
    return pd.DataFrame({"method": name, "seconds": round(seconds[name], 2), "class_prompts": queries[name]} for name in calls)
