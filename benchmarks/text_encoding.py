"""Benchmark of text encoding: prompts per second of the tower, against open_clip's path and bare products.

`text_table` times the ways that `speed.py` describes; `padded` is open_clip's path,
`necessary_operations` counts what the features need, and `bare_products` gives the
products that the tower's rate is compared with.
"""

from __future__ import annotations

import pandas as pd
import torch
import torch.nn.functional as F
from timing import peak_memory, turns

from cbbt.box.models import load_model
from cbbt.box.text_tower import TextTower

EUROSAT = [
    "Annual Crop Land", "Forest", "Herbaceous Vegetation Land", "Highway or Road", "Industrial Buildings",
    "Pasture Land", "Permanent Crop Land", "Residential Buildings", "River", "Sea or Lake",
]  # fmt: skip


def class_names(count: int) -> list[str]:
    """EuroSAT's ten names, repeated, with their own lengths."""
    return [EUROSAT[i % len(EUROSAT)] for i in range(count)]


def padded(tower, contexts, names, length=None):
    """open_clip's path, one padded prompt each, all contexts with all classes in one call."""
    tower.causal = False
    try:
        if length is None:
            return tower.encode(contexts, names)
        full = tower.text.positional_embedding, tower.text.attn_mask, tower.length
        tower.text.positional_embedding = torch.nn.Parameter(full[0][:length], requires_grad=False)
        tower.text.attn_mask, tower.length = full[1][:length, :length], length
        try:
            return tower.encode(contexts, names)
        finally:
            tower.text.positional_embedding, tower.text.attn_mask, tower.length = full
    finally:
        tower.causal = True


def necessary_operations(tower: TextTower, contexts: int, length: int, names: list[str]) -> float:
    """Multiply-adds × 2 that the features need: each distinct token once, the last layer where it is read."""
    width, blocks = tower.context_dim, tower.text.transformer.resblocks
    layers, hidden = len(blocks), blocks[0].mlp.c_fc.out_features
    own = [len(tower.tokens.ids(name)) + len(tower.stop) + 1 for name in names]
    tokens = 1 + contexts * length + contexts * sum(own)  # [SOS] once, each context once for all its classes
    prompts = contexts * len(names)
    total = (layers - 1) * tokens * 2 * (4 * width * width + 2 * width * hidden)
    total += tokens * 2 * 2 * width * width + prompts * 2 * (2 * width * width + 2 * width * hidden)
    seen = contexts * sum(n * (1 + length) + n * (n + 1) / 2 for n in own) + contexts * length * (length + 3) / 2
    return total + (layers - 1) * seen * 4 * width + prompts * tower.text.text_projection.numel() * 2


def bare_products(tower: TextTower, rows: int):
    """A call that makes only the matrix products of the tower's layers on `rows` tokens, and its operations."""
    weights = []
    for block in tower.text.transformer.resblocks:
        weights += [block.attn.in_proj_weight, block.attn.out_proj.weight, block.mlp.c_fc.weight, block.mlp.c_proj.weight]
    tokens = {width: torch.randn(rows, width).to(weights[0]) for width in {weight.shape[1] for weight in weights}}

    def products():
        for weight in weights:
            F.linear(tokens[weight.shape[1]], weight)

    return products, 2 * rows * sum(weight.numel() for weight in weights)


def text_table(backbones, classes, lengths, directions, repeats, device, compiled=False) -> pd.DataFrame:
    """Text encoding of `directions` contexts; `compiled` adds the tower under torch.compile."""
    rows = []
    for backbone in backbones:
        loaded = load_model(backbone, None, device)
        tower = TextTower(loaded.model, loaded.tokenizer)
        for count in classes:
            names = class_names(count)
            for length in lengths:
                many = max(1, min(directions, 6400 // count))  # for a thousand classes six contexts are enough
                contexts = 0.02 * torch.randn(many, length, tower.context_dim, device=device)
                few = contexts[: max(1, 20 // count)]  # the padded path is too slow for all
                few_names = names[: 20 * len(few)]
                longest = max(len(tower.tokens.ids(name)) for name in few_names)
                prompts, few_prompts = len(contexts) * count, len(few) * len(few_names)
                products, products_operations = bare_products(tower, min(prompts * 4, tower.max_tokens))
                calls = {
                    "padded": lambda: padded(tower, few, few_names),
                    "cut": lambda: padded(tower, few, few_names, length + longest + 3),
                    "products": products,
                    "tower": lambda: tower.encode(contexts, names),
                }
                if compiled:
                    twin = TextTower(loaded.model, loaded.tokenizer)
                    twin._evaluate = torch.compile(twin._evaluate, dynamic=True)
                    calls["compiled"] = lambda: twin.encode(contexts, names)
                seconds = turns(calls, repeats, device)
                times = seconds.div(seconds.tower, axis=0).median().to_dict()  # as long as the tower, in the same turn
                difference = (padded(tower, few, few_names) - tower.encode(few, few_names)).abs().max().item()
                operations = necessary_operations(tower, len(contexts), length, names)
                rows.append(
                    {
                        "backbone": backbone,
                        "classes": count,
                        "context_length": length,
                        "contexts": many,
                        "prompts_per_second": round(prompts / seconds.tower.median()),
                        "over_padded": round(times["padded"] / few_prompts * prompts, 1),
                        "over_cut": round(times["cut"] / few_prompts * prompts, 1),
                        "largest_difference": float(f"{difference:.1e}"),
                        "gigaflops": round(operations / seconds.tower.median() / 1e9),
                        "matmul_gigaflops": round(products_operations / seconds.products.median() / 1e9),
                        "share_of_matmul": round(times["products"] * operations / products_operations, 2),
                        "peak_memory_gb": round(peak_memory(device), 2),
                    }
                )
                if compiled:
                    rows[-1]["over_eager"] = round(1 / times["compiled"], 2)
                print(rows[-1], flush=True)
    return pd.DataFrame(rows)
