"""The catalogue of methods: label, access, what is tuned, and look in figures.

Data only, so that tables and figures know the methods without loading them:
`cbbt.methods` holds the code under the same keys. The order is that of tables and
legends. The hue shows what a method tunes, shade and marker identify it. No two methods
of a kind share both; those in the same panel of the kit's figures differ by 15 or more
in CIEDE2000, for deuteranopes and protanopes too (`tests/test_looks.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

SHADES = {  # what a method tunes → shades of its hue; `own`: methods that are not in the catalogue
    "reference": ("#000000", "#7B7B7B", "#C1C1C1", "#3E3E3E"),
    "prompt": ("#C87500", "#511A03", "#FEB300", "#9B410D", "#AA6E62", "#D5A883"),
    "output": ("#3490FB", "#2F919A", "#093267", "#74CBF7"),
    "both": ("#C83F79", "#8013E3", "#542570"),
    "own": ("#4DAF4A", "#0B5D1E", "#B6E08A"),
}


@dataclass(frozen=True)
class Entry:
    """label: in tables and figures. access: what the box must accept and give. learns: what is tuned.
    kind: a key of `SHADES`, the prompt side, the output side, both, or a reference. shade: index of its shade.
    marker: a filled matplotlib marker; "" for a horizontal line."""

    label: str
    access: str
    learns: str
    kind: str
    shade: int
    marker: str

    @property
    def colour(self) -> str:
        return SHADES[self.kind][self.shade]


CATALOGUE = {
    "zero_shot": Entry("Zero-shot CLIP", "text, features", "nothing", "reference", 3, ""),
    "zero_shot_bare": Entry("Zero-shot, bare prompt", "text, features", "nothing", "reference", 2, ""),
    "true_gradient": Entry("True gradient (white box)", "gradients", "context", "reference", 0, "X"),
    "coop4": Entry("CoOp, M = 4 (white box)", "gradients", "context", "reference", 1, "P"),
    "coop16": Entry("CoOp, M = 16 (white box)", "gradients", "context", "reference", 2, "D"),
    "cbbt_prompt": Entry("CBBT, prompt only", "token embeddings, features", "context", "prompt", 0, "^"),
    "adapter": Entry("Adapter only", "features", "adapter", "output", 0, "s"),
    "tip_adapter": Entry("Tip-Adapter", "features", "α, β", "output", 2, "v"),
    "tip_adapter_f": Entry("Tip-Adapter-F", "features", "cache keys, α, β", "output", 3, "P"),
    "cbbt": Entry("CBBT", "token embeddings, features", "context, adapter", "both", 0, "o"),
    "cbbt_support_prompt": Entry("CBBT on the support, prompt only", "token embeddings, features", "context", "prompt", 5, ">"),
    "cbbt_support": Entry("CBBT on the support", "token embeddings, features", "context, adapter", "both", 1, "s"),
    "cbbt_plus_prompt": Entry("CBBT+, prompt only", "token embeddings, features", "context", "prompt", 1, "<"),
    "cbbt_plus_logits": Entry("CBBT+, prompt by logits", "token embeddings, logits", "context", "prompt", 4, "P"),
    "cbbt_plus": Entry("CBBT+", "token embeddings, features", "context, experts", "both", 1, "v"),
    "cbbt_tip": Entry("CBBT, cache adapter", "token embeddings, features", "context, cache keys, α, β", "both", 2, "D"),
    "bbt": Entry("BBT", "token embeddings, losses", "projected context", "prompt", 2, "p"),
    "bpt_vlm": Entry("BPT-VLM", "pixels, image tokens, token embeddings, losses", "projected prompts", "prompt", 3, "H"),
    "bpt_vlm_text": Entry("BPT-VLM, text side", "token embeddings, losses", "projected context", "prompt", 3, "s"),
    "craft": Entry("CraFT", "token embeddings, logits", "projected context, head on logits", "both", 2, "h"),
    "sharpzo": Entry("SharpZO", "token embeddings, losses", "projected context", "prompt", 5, "v"),
    "zip": Entry("ZIP", "token embeddings, losses", "low-rank context", "prompt", 4, "D"),
    "blackvip": Entry("BlackVIP", "pixels, losses", "image prompt decoder", "prompt", 4, "o"),
    "blackvip_pca": Entry("BlackVIP, PCA encoder", "pixels, losses", "image prompt decoder", "prompt", 5, "X"),
    "lfa": Entry("LFA", "features", "linear map", "output", 1, ">"),
    "linear_probe": Entry("Linear probe", "features", "class weights", "output", 1, "o"),
    "cross_modal": Entry("Cross-modal probe", "features", "class weights", "output", 2, "<"),
    "task_res": Entry("TaskRes", "features", "residual on class text", "output", 0, "^"),
    "zs_lp": Entry("ZS-LP", "features", "class prototypes", "output", 3, "d"),
    "clap": Entry("CLAP", "features", "class prototypes", "output", 1, "h"),
    "lp_plus": Entry("LP++", "features", "class weights, shares of text", "output", 0, "*"),
    "gda": Entry("GDA", "features", "class weights, α", "output", 3, "p"),
    "kernel_ridge": Entry("ProKeR", "features", "kernel coefficients, β, λ", "output", 2, "D"),
    "word_search": Entry("Word search (offline)", "text, features", "template", "prompt", 1, "h"),
    "llm_search": Entry("LLM search over words", "text, features", "template", "prompt", 2, "*"),
}

UNTUNED = ("zero_shot", "zero_shot_bare")  # draw no shots: one run serves for every number of shots and every seed


def label(method: str) -> str:
    """The method's name in figures and tables; for a method of your own, its key."""
    return CATALOGUE[method].label if method in CATALOGUE else method


def method_order(methods) -> list[str]:
    """These methods, each once: first those of `CATALOGUE` in its order, then others by name."""
    known = list(CATALOGUE)
    return sorted(set(methods), key=lambda method: (known.index(method) if method in known else len(known), method))
