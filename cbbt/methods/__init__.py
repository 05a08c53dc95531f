"""The methods, one file each; `METHODS` is the door to them.

To add one: write a file with `fit(box, support, config, session) -> Fitted` and
name it here, or pass your own `Method` to `METHODS` before calling `cbbt.run`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable

from cbbt.methods import adapter, bbt, blackvip, bpt_vlm, cbbt, cbbt_plus, cbbt_prompt, cbbt_tip, coop, craft
from cbbt.methods import lfa, tip_adapter, tip_adapter_f, word_search, zero_shot, zip_prompt


@dataclass(frozen=True)
class Method:
    """A method and what it needs.

    fit: (box, support, config, session) → Fitted. label: for figures and tables.
    access: what the box must accept and give. learns: what is tuned.
    white_box: whether `fit` is given a `WhiteBox`. needs_shots: False for zero-shot.
    defaults: the method's own values of settings that `RunConfig` leaves at None.
    settings: a frozen dataclass of further settings that only this method has.
    """

    fit: Callable
    label: str
    access: str
    learns: str
    white_box: bool = False
    needs_shots: bool = True
    defaults: dict = field(default_factory=lambda: CBBT_DEFAULTS)
    settings: type | None = None


# On the embedded model d = 128, so q = 64 is the ratio of the paper's 256 at d = 512.
CBBT_DEFAULTS = {
    "q": 64,
    "directions": "sphere",
    "scoring": "batch",
    "prompt_every": 1,
    "epochs": 50,
    "prompt_lr": 2e-3,
}

METHODS: dict[str, Method] = {
    "zero_shot": Method(zero_shot.fit, "Zero-shot CLIP", "text, features", "nothing", needs_shots=False),
    "coop": Method(coop.fit, "CoOp (white box)", "gradients", "context", white_box=True),
    "cbbt_prompt": Method(cbbt_prompt.fit, "CBBT, prompt only", "token embeddings, features", "context"),
    "adapter": Method(adapter.fit, "Adapter only", "features", "adapter"),
    "tip_adapter": Method(tip_adapter.fit, "Tip-Adapter", "features", "α, β"),
    "tip_adapter_f": Method(tip_adapter_f.fit, "Tip-Adapter-F", "features", "cache keys, α, β"),
    "cbbt": Method(cbbt.fit, "CBBT", "token embeddings, features", "context, adapter"),
    "cbbt_plus_prompt": Method(
        cbbt_prompt.fit, "CBBT+, prompt only", "token embeddings, features", "context", defaults=cbbt_plus.DEFAULTS
    ),
    "cbbt_plus": Method(
        cbbt.fit, "CBBT+", "token embeddings, features", "context, adapter", defaults=cbbt_plus.DEFAULTS
    ),
    "cbbt_tip": Method(cbbt_tip.fit, "CBBT, cache adapter", "token embeddings, features", "context, cache keys, α, β"),
    "bbt": Method(bbt.fit, "BBT", "token embeddings, losses", "projected context", settings=bbt.Settings),
    "bpt_vlm": Method(
        bpt_vlm.fit, "BPT-VLM", "pixels, image tokens, token embeddings, losses", "projected prompts", settings=bpt_vlm.Settings
    ),
    "craft": Method(
        craft.fit, "CraFT", "token embeddings, logits", "projected context, head on logits", settings=craft.Settings
    ),
    "zip": Method(zip_prompt.fit, "ZIP", "token embeddings, losses", "low-rank context", settings=zip_prompt.Settings),
    "blackvip": Method(blackvip.fit, "BlackVIP", "pixels, losses", "image prompt decoder", settings=blackvip.Settings),
    "lfa": Method(lfa.fit, "LFA", "features", "linear map", settings=lfa.Settings),
    "word_search": Method(
        word_search.fit, "LLM search over words", "text, features", "template", settings=word_search.Settings
    ),
}
