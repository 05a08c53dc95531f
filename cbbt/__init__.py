"""Black-box tuning of vision-language models: a reproduction kit for CBBT.

Guo et al., "Black-Box Tuning of Vision-Language Models with Effective Gradient
Approximation", Findings of EMNLP 2023, arXiv 2312.15901.

Read the package top-down:

1. `blackbox`    the wall: what may be asked of a model, and what it costs
2. `prompts`     contexts and class names; `text_tower` evaluates them fast
3. `estimators`  gradients from losses alone
4. `adapters`    small modules after the box
5. `tuning`      the collaborative loop; `search`, the loop of the searches
6. `methods`     one file per method
7. `experiment`  a configuration (`config`) in, a record out
"""

from cbbt.blackbox import BlackBox, WhiteBox, load_black_box, load_white_box
from cbbt.config import RunConfig
from cbbt.data import DataError, check_data, download_data, load_task
from cbbt.estimators import GradientEstimate, estimate_gradient
from cbbt.experiment import curves_table, load_records, run, runs_table
from cbbt.ledger import BudgetExceeded, Ledger
from cbbt.merging import merge_records
from cbbt.methods import METHODS, Method

__all__ = [
    "METHODS",
    "BlackBox",
    "BudgetExceeded",
    "DataError",
    "GradientEstimate",
    "Ledger",
    "Method",
    "RunConfig",
    "WhiteBox",
    "check_data",
    "curves_table",
    "download_data",
    "estimate_gradient",
    "load_black_box",
    "load_records",
    "load_task",
    "load_white_box",
    "merge_records",
    "run",
    "runs_table",
]
