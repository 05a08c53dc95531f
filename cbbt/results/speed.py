"""Numbers from the tables of speed (`benchmarks/speed.py`, `speed_*.csv`), for the text next to the figures."""

from __future__ import annotations

import numpy as np
import pandas as pd


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
