"""The methods, one file each; `METHODS` lists them, `parts/` holds shared parts.

Read `cbbt` first, then any other: each reads like its algorithm. A method learns about
a model only through the `box` it is given, and about a task only through the shots.

To add one: write a file with `fit(box, support, config, session) -> Fitted`, name it
here, and give it a row in `cbbt.catalogue` (label, access, look); or pass your own
`Method` to `METHODS` before calling `cbbt.run`. A learned prompt that works for
other classes is the `retext` of the method's `Classifier`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cbbt.methods import (
    adapter,
    bbt,
    blackvip,
    bpt_vlm,
    cbbt,
    cbbt_plus,
    cbbt_prompt,
    cbbt_support,
    cbbt_tip,
    clap,
    coop,
    craft,
    cross_modal,
    gda,
    kernel_ridge,
    lfa,
    linear_probe,
    lp_plus,
    sharpzo,
    task_res,
    tip_adapter,
    tip_adapter_f,
    true_gradient,
    word_search,
    zero_shot,
    zip_prompt,
)


@dataclass(frozen=True)
class Method:
    """A method's function and defaults; its label is in `cbbt.catalogue`.

    fit: (box, support, config, session) → Fitted.
    white_box: whether `fit` is given a `WhiteBox`. needs_shots: False for zero-shot.
    defaults: the method's values for settings that `RunConfig` leaves at None.
    settings: a frozen dataclass of further settings that only this method has.
    """

    fit: Callable
    white_box: bool = False
    needs_shots: bool = True
    defaults: dict = field(default_factory=dict)
    settings: type | None = None


# Defaults for methods without their own. Rates and the adapter's ratio were chosen by configs/search.yaml
# with 16 shots. On the embedded model d = 128, so q = 64 keeps the paper's ratio of q = 256 at d = 512.
DEFAULTS = {
    "start": "context", "context_length": 1, "context_init": "a",
    "q": 64, "directions": "sphere", "scoring": "batch", "prompt_every": 1,
    "prompt_lr": 2e-2, "adapter_ratio": 0.5, "adapter_lr": 1e-3,
}  # fmt: skip
ALONE = {"prompt_lr": 0.32}  # a prompt without an adapter
COOP = {"context_init": "random"}

METHODS: dict[str, Method] = {
    "zero_shot": Method(zero_shot.fit, needs_shots=False, defaults={"start": "template"}),
    "zero_shot_bare": Method(zero_shot.fit, needs_shots=False),
    "true_gradient": Method(true_gradient.fit, white_box=True, defaults=ALONE),
    "coop4": Method(coop.fit, white_box=True, defaults=COOP | {"context_length": 4, "prompt_lr": 8e-3}),
    "coop16": Method(coop.fit, white_box=True, defaults=COOP | {"context_length": 16, "prompt_lr": 2e-3}),
    "cbbt_prompt": Method(cbbt_prompt.fit, defaults=ALONE),
    "adapter": Method(adapter.fit),
    "tip_adapter": Method(tip_adapter.fit),
    "tip_adapter_f": Method(tip_adapter_f.fit),
    "cbbt": Method(cbbt.fit),
    "cbbt_support_prompt": Method(cbbt_prompt.fit, defaults=cbbt_support.DEFAULTS | {"prompt_lr": 8e-2}),
    "cbbt_support": Method(cbbt.fit, defaults=cbbt_support.DEFAULTS | {"prompt_lr": 1e-2}),
    "cbbt_plus_prompt": Method(cbbt_plus.fit, defaults=cbbt_plus.DEFAULTS, settings=cbbt_plus.PromptSettings),
    "cbbt_plus_logits": Method(cbbt_plus.fit, defaults=cbbt_plus.DEFAULTS, settings=cbbt_plus.LogitsSettings),
    "cbbt_plus": Method(cbbt_plus.fit, defaults=cbbt_plus.DEFAULTS, settings=cbbt_plus.Settings),
    "cbbt_tip": Method(cbbt_tip.fit),
    "bbt": Method(bbt.fit, settings=bbt.Settings),
    "bpt_vlm": Method(bpt_vlm.fit, settings=bpt_vlm.Settings),
    "bpt_vlm_text": Method(bpt_vlm.fit, settings=bpt_vlm.TextSettings),
    "craft": Method(craft.fit, settings=craft.Settings),
    "sharpzo": Method(sharpzo.fit, settings=sharpzo.Settings),
    "zip": Method(zip_prompt.fit, settings=zip_prompt.Settings),
    "blackvip": Method(blackvip.fit, settings=blackvip.Settings),
    "blackvip_pca": Method(blackvip.fit, settings=blackvip.PcaSettings),
    "lfa": Method(lfa.fit, settings=lfa.Settings),
    "linear_probe": Method(linear_probe.fit, settings=linear_probe.Settings),
    "cross_modal": Method(cross_modal.fit, settings=cross_modal.Settings),
    "task_res": Method(task_res.fit, settings=task_res.Settings),
    "zs_lp": Method(clap.fit, settings=clap.Settings),
    "clap": Method(clap.fit, settings=clap.ClapSettings),
    "lp_plus": Method(lp_plus.fit, settings=lp_plus.Settings),
    "gda": Method(gda.fit, settings=gda.Settings),
    "kernel_ridge": Method(kernel_ridge.fit, settings=kernel_ridge.Settings),
    "word_search": Method(word_search.fit, settings=word_search.Settings),
    "llm_search": Method(word_search.fit, settings=word_search.ChatSettings),
}
