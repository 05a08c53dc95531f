"""CMA-ES (Hansen & Ostermeier 2001) through pycma, for BBT, BPT-VLM and CraFT.

pycma draws from numpy's global stream, and seeds itself from the clock if the seed is 0;
here it gets its own stream. Its only checkpoint is a pickle, so a strategy is restored by
replaying the same losses to a new one, without a query to the box.
"""

from __future__ import annotations

import math

import lazy_loader
import numpy as np
import torch

from cbbt.box.prompts import fill_template
from cbbt.seeding import generator_for

cma = lazy_loader.load("cma")


class Evolution:
    """A strategy over z (k,), started at 0.

    Args:
        numbers: k. sigma: the initial step size, > 0. population: candidates per
            generation. bound: entries stay in ±bound; 0 for no bound. seed: of all draws.
    """

    def __init__(self, numbers: int, sigma: float, population: int, bound: float, seed: int):
        stream = np.random.default_rng(generator_for(seed, "evolution").initial_seed())
        options = {
            "popsize": population,
            "seed": math.nan,  # leave numpy's global stream alone
            "randn": lambda *shape: stream.standard_normal(shape),
            "verbose": -9,
        }
        if bound > 0:
            options["bounds"] = [-bound, bound]
        self.strategy = cma.CMAEvolutionStrategy(np.zeros(numbers), sigma, options)
        self.told: list[list[float]] = []

    def ask(self) -> torch.Tensor:
        """The next generation's candidates, float32 (population, k)."""
        self.asked = self.strategy.ask()
        return torch.from_numpy(np.stack(self.asked)).float()

    def tell(self, losses: torch.Tensor) -> None:
        """The candidates' losses (population,). Raises FloatingPointError if one is not finite."""
        if not losses.isfinite().all():
            raise FloatingPointError(f"{int((~losses.isfinite()).sum())} of {len(losses)} losses are not finite")
        self.told.append(losses.double().tolist())
        self.strategy.tell(self.asked, self.told[-1])

    def history(self) -> torch.Tensor:
        """All losses told, float64 (generations, population)."""
        return torch.tensor(self.told, dtype=torch.float64)

    def mean(self) -> torch.Tensor:
        """The mean (k,) of the distribution that candidates are drawn from, within the bounds."""
        return torch.from_numpy(np.array(self.strategy.result.xfavorite)).float()

    def replay(self, history: torch.Tensor) -> None:
        """Bring a new strategy to the state after `history`."""
        for losses in history:
            self.ask()
            self.tell(losses)


def random_projection(outputs: int, inputs: int, std: float, generator: torch.Generator) -> torch.Tensor:
    """A (outputs, inputs) with normal entries of standard deviation `std`."""
    return std * torch.randn(outputs, inputs, generator=generator)


def calibrated_std(box, support, numbers: int, sigma: float) -> float:
    """Standard deviation of A's entries for which A z, z ~ N(0, σ²I), varies as token embeddings do (BPT-VLM).

    Computed from the embeddings of the task's own sentences, which the box gives.
    """
    sentences = fill_template(support.template, support.class_names)
    embeddings = torch.cat([box.token_embeddings(sentence) for sentence in sentences])
    return embeddings.std().item() / (math.sqrt(numbers) * sigma)
