"""Benchmark of single steps: one estimate of the prompt's gradient, or its losses.

`step_table` compares a step with the released loop, `scaling_table` varies one of its
sizes, and `memory_table` measures its peak memory, each in a process of its own;
`plus_table` does so for a step of CBBT+.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pandas as pd
import torch
import torch.nn.functional as F
from text_encoding import class_names, padded
from timing import clock, peak_memory, turns

from cbbt.box.blackbox import load_black_box
from cbbt.box.models import load_model
from cbbt.box.text_tower import TextTower
from cbbt.gradients.estimators import default_epsilon, estimate_gradient
from cbbt.gradients.linearised import CANDIDATES, LinearisedAnswers


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
        """Padded prompts, 6000 texts per chunk, a Python loop over directions for losses and sums."""
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
    """A step with the paper's q = 256 for growing numbers of classes, each in a process of its own."""
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


def one_plus_step(backbone: str, classes: int, directions: int, memory: int, device: str) -> dict[str, float]:
    """Seconds of the queries and of the rest of a step of CBBT+ with a full frame, M = 16, 16 shots; peak memory in GB."""
    box = load_black_box(backbone, None, device=device)
    generator = torch.Generator().manual_seed(0)
    labels, names = torch.arange(classes, device=device).repeat(16), class_names(classes)
    features = F.normalize(torch.randn(len(labels), box.embed_dim, generator=generator), dim=-1).to(device)
    asking = [0.0]

    def ask(contexts):
        begun = time.perf_counter()
        text = box.encode_prompts(contexts, names)
        asking[0] += time.perf_counter() - begun
        return text

    start = box.token_embeddings("a").repeat(16, 1)
    answers = LinearisedAnswers(ask, start, radius=start[0].norm().item(), memory=memory)
    # A full frame without its queries: the cost of a step does not depend on the values of the differences.
    answers.directions = torch.linalg.qr(torch.randn(start.numel(), memory, generator=generator).to(device))[0].T
    answers.slopes = 1e-2 * torch.randn(memory, *answers.answer.shape, generator=generator).to(device)
    asking[0], begun = 0.0, time.perf_counter()
    answers.explore(directions, generator)
    answers.move(lambda text: F.cross_entropy(box.logit_scale * features @ text.T, labels))
    seconds = time.perf_counter() - begun
    return {"seconds_asking": asking[0], "seconds_solving": seconds - asking[0], "peak_memory_gb": peak_memory(box.device)}


def plus_table(backbone, classes, device) -> pd.DataFrame:
    """A step of CBBT+ for growing numbers of classes: its queries, the seconds of these and of the local model, its memory."""
    rows = []
    for count in classes:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            measured = pool.submit(one_plus_step, backbone, count, 16, 64, str(device)).result()
        sizes = {"backbone": backbone, "classes": count, "directions": 16, "prompt_sets": 16 + CANDIDATES}
        rows.append(sizes | {name: round(value, 2) for name, value in measured.items()})
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)
