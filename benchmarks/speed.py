"""How fast prompts are encoded and a step is made, against the arithmetic.

    python benchmarks/speed.py [--backbones RN50 ViT-B-16] [--classes 10 100 1000]
        [--contexts 1 4 16] [--directions 64] [--repeats 3] [--memory 10 100 1000]
        [--device cpu] [--compile] [--tables speed_text ...] [--out figures/data]

Random weights: speed does not depend on their values. Calls that are compared take
turns, after a turn that warms up; a ratio is the median of the turns' ratios, since a
machine changes its speed between turns more than within one. Writes and prints
`speed_text.csv`, `speed_step.csv` (against the released loop), `speed_plan.csv` (a
run of the paper's grid), `speed_run.csv` (runs of the embedded profile),
`speed_memory.csv` and `speed_scaling.csv`.

- *padded* is open_clip's own `encode_text` path at the full 77 tokens.
- *cut* is the same path cut right after the last end-of-text token.
- *tower* is `cbbt.box.text_tower`.
- *share of matmul* is the rate of the tower's necessary operations over the rate of
  bare products in the same turn: those of its layers (queries-keys-values, output, both
  of the MLP, one pass through all layers), on as many rows as the tower takes at once.
"""

from __future__ import annotations

import argparse
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F

import cbbt
from cbbt.box.blackbox import load_black_box
from cbbt.box.models import load_model
from cbbt.box.text_tower import TextTower
from cbbt.gradients.estimators import default_epsilon, estimate_gradient
from cbbt.runs.experiment import device_name

EUROSAT = [
    "Annual Crop Land", "Forest", "Herbaceous Vegetation Land", "Highway or Road", "Industrial Buildings",
    "Pasture Land", "Permanent Crop Land", "Residential Buildings", "River", "Sea or Lake",
]  # fmt: skip

TABLES = ["speed_step", "speed_plan", "speed_run", "speed_scaling", "speed_memory", "speed_text"]


def class_names(count: int) -> list[str]:
    """EuroSAT's ten names, repeated with the lengths that they have."""
    return [EUROSAT[i % len(EUROSAT)] for i in range(count)]


def turns(calls: dict, repeats: int, device: torch.device) -> pd.DataFrame:
    """Seconds of each call (columns) in each turn (rows), after a turn that warms up."""
    rows = []
    for _ in range(repeats + 1):
        row = {}
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            row[name] = time.perf_counter() - begun
        rows.append(row)
    return pd.DataFrame(rows[1:])


def clock(calls: dict, repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each call, the calls taking turns."""
    return turns(calls, repeats, device).median().to_dict()


def necessary_operations(tower: TextTower, contexts: int, length: int, names: list[str]) -> float:
    """Multiply-adds × 2 that the features need: each distinct token once, the last layer where it is read."""
    width, blocks = tower.context_dim, tower.text.transformer.resblocks
    layers, hidden = len(blocks), blocks[0].mlp.c_fc.out_features
    own = [len(tower.token_ids(name)) + len(tower.stop) + 1 for name in names]
    tokens = 1 + contexts * length + contexts * sum(own)  # [SOS] once, each context once for all its classes
    prompts = contexts * len(names)
    total = (layers - 1) * tokens * 2 * (4 * width * width + 2 * width * hidden)
    total += tokens * 2 * 2 * width * width + prompts * 2 * (2 * width * width + 2 * width * hidden)
    seen = contexts * sum(n * (1 + length) + n * (n + 1) / 2 for n in own) + contexts * length * (length + 3) / 2
    return total + (layers - 1) * seen * 4 * width + prompts * tower.text.text_projection.numel() * 2


def bare_products(tower: TextTower, rows: int):
    """A call that makes all products of the tower's layers with `rows` tokens and nothing else, and its operations."""
    weights = []
    for block in tower.text.transformer.resblocks:
        weights += [block.attn.in_proj_weight, block.attn.out_proj.weight, block.mlp.c_fc.weight, block.mlp.c_proj.weight]
    tokens = {width: torch.randn(rows, width).to(weights[0]) for width in {weight.shape[1] for weight in weights}}

    def products():
        for weight in weights:
            F.linear(tokens[weight.shape[1]], weight)

    return products, 2 * rows * sum(weight.numel() for weight in weights)


def padded(tower, contexts, names, length=None):
    """open_clip's path, one padded prompt each, all contexts with all classes in one call."""
    tower.causal = False
    try:
        if length is None:
            return tower.encode(contexts, names)
        full = tower.text.positional_embedding, tower.text.attn_mask
        tower.text.positional_embedding = torch.nn.Parameter(full[0][:length], requires_grad=False)
        tower.text.attn_mask = full[1][:length, :length]
        tokenizer, tower.tokenizer = tower.tokenizer, lambda texts: tokenizer(texts)[:, :length]
        tower.tokenizer.sot_token_id, tower.tokenizer.eot_token_id = tokenizer.sot_token_id, tokenizer.eot_token_id
        try:
            return tower.encode(contexts, names)
        finally:
            tower.text.positional_embedding, tower.text.attn_mask = full
            tower.tokenizer = tokenizer
    finally:
        tower.causal = True


def text_table(backbones, classes, lengths, directions, repeats, device, compiled=False) -> pd.DataFrame:
    """Text encoding of `directions` contexts; `compiled` adds the tower under torch.compile."""
    rows = []
    for backbone in backbones:
        loaded = load_model(backbone, None, device)
        tower = TextTower(loaded.model, loaded.tokenizer)
        for count in classes:
            names = class_names(count)
            for length in lengths:
                many = max(1, min(directions, 6400 // count))  # a thousand classes: six contexts say as much
                contexts = 0.02 * torch.randn(many, length, tower.context_dim, device=device)
                few = contexts[: max(1, 20 // count)]  # the padded path is too slow for all
                few_names = names[: 20 * len(few)]
                longest = max(len(tower.token_ids(name)) for name in few_names)
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


def peak_memory(device) -> float:
    """Largest memory so far, GB: the GPU's, or this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def step_table(backbone, directions, repeats, device) -> pd.DataFrame:
    """One estimate of the prompt's gradient: this package against a loop like the released one."""
    loaded = load_model(backbone, None, device)
    tower = TextTower(loaded.model, loaded.tokenizer)
    names, scale = class_names(10), float(loaded.model.logit_scale.exp())
    images = F.normalize(torch.randn(32, loaded.model.visual.output_dim, device=device), dim=-1)
    labels = torch.arange(32, device=device) % 10
    context = 0.02 * torch.randn(1, tower.context_dim, device=device)

    def ours():
        def loss(contexts):
            text = tower.encode(contexts, names)
            logits = scale * torch.einsum("be,nce->nbc", images, text)
            return F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(text)), reduction="none").view(len(text), -1).mean(1)

        return estimate_gradient(loss, context, q=directions, generator=torch.Generator().manual_seed(0)).gradient

    def released():
        """Padded prompts, 6000 texts a chunk, a Python loop over directions for losses and sums."""
        generator, epsilon = torch.Generator().manual_seed(0), default_epsilon(context.numel())

        def cross_entropy(text):
            return F.cross_entropy(scale * images @ text.T, labels)

        base = cross_entropy(padded(tower, context[None], names)[0])
        probes = torch.randn(directions, context.numel(), generator=generator)
        probes = (probes / probes.norm(dim=1, keepdim=True)).to(device)
        total = torch.zeros_like(context)
        for chunk in probes.split(6000 // len(names)):
            texts = padded(tower, context + epsilon * chunk[:, None], names)
            for probe, text in zip(chunk, texts):
                total += (cross_entropy(text) - base) / epsilon * probe
        return total / epsilon / directions

    with torch.no_grad():
        seconds = turns({"ours": ours, "released": released}, repeats, device)
        cosine = F.cosine_similarity(ours().flatten(), released().flatten(), dim=0).item()
    return pd.DataFrame(
        [{"backbone": backbone, "classes": 10, "directions": directions, "seconds": round(seconds.ours.median(), 3),
          "seconds_released_loop": round(seconds.released.median(), 3),
          "ratio": round(float((seconds.released / seconds.ours).median()), 1), "cosine_of_estimates": round(cosine, 5)}]
    )  # fmt: skip


def plan_table(backbones, repeats, device) -> pd.DataFrame:
    """What one run of the paper's grid costs: EuroSAT at 16 shots, q = 256, 150 epochs, a fresh view each.

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


def scaling_table(backbone, repeats, device) -> pd.DataFrame:
    """Seconds to score perturbed prompts as one of the sizes of a step grows, the others fixed."""
    box = load_black_box(backbone, None, device=str(device))
    base = {"directions": 16, "classes": 10, "context_length": 1, "images": 32}
    growing = {
        "directions": (4, 16, 64, 256),
        "classes": (10, 40, 160),
        "context_length": (1, 4, 16),
        "images": (32, 1_000, 32_000),
    }
    rows = []
    for axis, values in growing.items():
        for value in values:
            size = base | {axis: value}
            contexts = 0.02 * torch.randn(size["directions"], size["context_length"], box.context_dim, device=device)
            names = class_names(size["classes"])
            features = F.normalize(torch.randn(size["images"], box.embed_dim, device=device), dim=-1)
            labels = torch.arange(size["images"], device=device) % size["classes"]
            step = {"step": lambda: box.losses(box.encode_prompts(contexts, names), features, labels)}
            rows.append({"axis": axis, **size, "seconds": round(clock(step, repeats, device)["step"], 4)})
    return pd.DataFrame(rows)


def run_table(repeats, device) -> pd.DataFrame:
    """Whole runs of the embedded profile: digits at 16 shots, one seed, start-up of Python apart."""
    calls = {
        name: (lambda name=name: cbbt.run(cbbt.RunConfig("digits", name), device=str(device)))
        for name in ("zero_shot", "adapter", "cbbt", "cbbt_plus")
    }
    seconds = clock(calls, repeats, device)
    queries = {name: call()["queries"]["class_prompts"] for name, call in calls.items()}
    return pd.DataFrame({"method": name, "seconds": round(seconds[name], 2), "class_prompts": queries[name]} for name in calls)


def one_step(backbone: str, classes: int, directions: int, device: str) -> tuple[float, float]:
    """Seconds of one estimate of the prompt's gradient, and peak memory of this process, or of the GPU, in GB."""
    box = load_black_box(backbone, None, device=device)
    features = F.normalize(torch.randn(32, box.embed_dim, device=device), dim=-1)
    labels, names = torch.arange(32, device=device) % classes, class_names(classes)
    begun = time.perf_counter()
    estimate_gradient(
        lambda contexts: box.losses(box.encode_prompts(contexts, names), features, labels),
        box.token_embeddings("a"), q=directions, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    return time.perf_counter() - begun, peak_memory(box.device)


def memory_table(backbone, classes, device) -> pd.DataFrame:
    """A step of the paper's q = 256 for ever more classes, each in a process of its own."""
    rows = []
    for count in classes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            seconds, peak = pool.submit(one_step, backbone, count, 256, str(device)).result()
        rows.append(
            {
                "backbone": backbone,
                "classes": count,
                "directions": 256,
                "seconds": round(seconds, 1),
                "peak_memory_gb": round(peak, 2),
            }
        )
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


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
        "speed_text": lambda: text_table(
            options.backbones, options.classes, options.contexts, options.directions, options.repeats, device, options.compile
        ),
    }
    for name in options.tables:
        with torch.set_grad_enabled(name == "speed_run"):  # whole runs train an adapter
            table = measure[name]()
        table.to_csv(options.out / f"{name}.csv", index=False)
        print(f"\n{name}\n{table.to_string(index=False)}", flush=True)


if __name__ == "__main__":
    main()
