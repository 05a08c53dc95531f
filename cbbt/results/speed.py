"""Operations of prompt encoding, by count, and numbers from the tables of speed (`benchmarks/speed.py`, `speed_*.csv`)."""

from __future__ import annotations

import numpy as np
import pandas as pd

NOT_NEEDED, COMPUTED, SHARED = range(3)
PADDED = 77  # positions of a prompt in CLIP's text towers


def position_map(own: np.ndarray, contexts: int, length: int) -> np.ndarray:
    """Which positions of each prompt a causal tower has to compute: a row per prompt, all classes of a context together.

    own: tokens of each class name (C,), with full stop and end of text. length: M, vectors of a context. Values
    (contexts · C, 77): `NOT_NEEDED`, `COMPUTED` for this prompt, or `SHARED` with one above.
    """
    positions = np.full((contexts * len(own), PADDED), NOT_NEEDED)
    for row, count in enumerate(np.tile(own, contexts)):
        positions[row, : 1 + length + count] = COMPUTED
        positions[row, 0] = SHARED if row else COMPUTED  # start of text
        positions[row, 1 : 1 + length] = SHARED if row % len(own) else COMPUTED
    return positions


def operation_counts(own: np.ndarray, length: int, contexts: int = 65, width: int = 512, layers: int = 12) -> dict[str, float]:
    """What the text features of `contexts` contexts take, by the formulas of notebook A4.

    own, length: as in `position_map`. width, layers: of the text tower. Returns tokens (that have to be computed),
    "tokens a prompt", operations (two for each multiply-add, without the projection at the end) and "operations,
    padded over kit": how many times as many a tower makes that pads each prompt to 77 tokens.
    """
    prompts = contexts * len(own)
    tokens = 1 + contexts * length + contexts * own.sum()
    pairs = contexts * (own * (1 + length) + own * (own + 1) / 2).sum() + contexts * length * (length + 3) / 2
    padded = layers * PADDED * prompts * (24 * width**2 + 4 * width * PADDED)
    causal = (layers - 1) * (24 * width**2 * tokens + 4 * width * pairs) + 4 * width**2 * tokens + 20 * width**2 * prompts
    counts = {"tokens": tokens, "tokens a prompt": tokens / prompts}
    return counts | {"operations": causal, "operations, padded over kit": padded / causal}


def exponents(scaling: pd.DataFrame) -> pd.DataFrame:
    """The exponent with which seconds grow with each size of speed_scaling.csv: 1 is proportional, 0 constant.

    Columns: "whole range", a least-squares fit to the logarithms, and "last step", between the two largest sizes.
    """
    powers = {}
    for size, rows in scaling.groupby("axis", sort=False):
        x, y = np.log(rows[size]), np.log(rows.seconds)
        powers[size] = {"whole range": np.polyfit(x, y, 1)[0], "last step": (y.diff() / x.diff()).iloc[-1]}
    return pd.DataFrame(powers).T


def text_sentences(text: pd.DataFrame) -> str:
    """The tower's speed-up, operations per second, and largest error of its features."""
    few = text.classes == text.classes.min()
    return (
        f"Encoding is {_range(text.over_padded)} times as fast as padding to 77 tokens and {_range(text.over_cut)} times as fast "
        f"as the path cut after the last token. The tower makes {_range(text.gigaflops[few])} GFLOP/s with {text.classes.min()} "
        f"classes, {_range(text.gigaflops[~few])} with more. The features differ by {text.largest_difference.max():.1e} at most."
    )


def scaling_sentence(scaling: pd.DataFrame) -> str:
    """The powers of `exponents`, in words."""
    powers = exponents(scaling).rename(index={"context_length": "context vectors"})
    parts = [f"{row['whole range']:.2f} of {size} ({row['last step']:.2f} over the last step)" for size, row in powers.iterrows()]
    return f"Over the measured range seconds grow with the power {', '.join(parts)}."


def _range(values: pd.Series) -> str:
    return f"{values.min():.0f} to {values.max():.0f}"
