"""Black-box tuning of vision-language models: a reproduction kit for CBBT.

Guo et al., "Black-Box Tuning of Vision-Language Models with Effective Gradient
Approximation", Findings of EMNLP 2023, arXiv 2312.15901.

To understand CBBT read nine files, in this order:

1. `box.blackbox`          the wall: what a model can be queried for
2. `box.ledger`            the cost of queries, and budgets
3. `box.prompts`           contexts, class names and templates
4. `gradients.estimators`  gradients from losses alone
5. `gradients.directions`  where the perturbed prompts lie
6. `adapters`              small modules after the box
7. `learning.fitting`      a method's input and output
8. `learning.tuning`       the collaborative loop
9. `methods.cbbt`          the method itself

The rest builds on them: `methods` (the peers), `data`, `runs` (the batch), `results`
(tables and figures), `mini_clip` (the embedded model and its pre-training), `cli` (the command `cbbt`).
"""

import lazy_loader

# Each name is imported on first use: a figure needs no torch, a data set no model.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "box.blackbox": ["BlackBox", "WhiteBox", "load_black_box", "load_white_box"],
        "box.ledger": ["BudgetExceeded", "Ledger"],
        "data.check": ["check_data"],
        "data.download": ["download_data"],
        "data.load": ["load_task"],
        "data.task": ["DataError"],
        "gradients.estimators": ["GradientEstimate", "estimate_gradient"],
        "methods": ["METHODS", "Method"],
        "results.records": ["curves_table", "load_records", "runs_table"],
        "runs.config": ["RunConfig"],
        "runs.experiment": ["run", "run_all"],
        "runs.merging": ["merge_records"],
    },
)
