"""What each method is called, needs and tunes, and how figures draw it.

Data alone, so that tables and figures know the methods without loading one:
`cbbt.methods` holds the code under the same keys. The order is that of tables and
legends. Colours start from Okabe & Ito's (2008), distinct for all common kinds of
colour vision, and each method has a marker of its own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """label: in tables and figures. access: what the box must accept and give.
    learns: what is tuned. colour, marker: as matplotlib takes them."""

    label: str
    access: str
    learns: str
    colour: str
    marker: str | tuple


CATALOGUE = {
    "zero_shot": Entry("Zero-shot CLIP", "text, features", "nothing", "#8C8C8C", ""),
    "zero_shot_bare": Entry("Zero-shot, bare prompt", "text, features", "nothing", "#BDBDBD", ""),
    "true_gradient": Entry("True gradient (white box)", "gradients", "context", "#000000", "X"),
    "coop4": Entry("CoOp, M = 4 (white box)", "gradients", "context", "#6F6F6F", "x"),
    "coop16": Entry("CoOp, M = 16 (white box)", "gradients", "context", "#3F3F3F", "+"),
    "cbbt_prompt": Entry("CBBT, prompt only", "token embeddings, features", "context", "#E69F00", "^"),
    "adapter": Entry("Adapter only", "features", "adapter", "#0072B2", "s"),
    "tip_adapter": Entry("Tip-Adapter", "features", "α, β", "#56B4E9", "v"),
    "tip_adapter_f": Entry("Tip-Adapter-F", "features", "cache keys, α, β", "#009E73", "P"),
    "cbbt": Entry("CBBT", "token embeddings, features", "context, adapter", "#D55E00", "o"),
    "cbbt_support_prompt": Entry("CBBT on the support, prompt only", "token embeddings, features", "context", "#C49A6C", "<"),
    "cbbt_support": Entry("CBBT on the support", "token embeddings, features", "context, adapter", "#A0522D", (6, 1, 30)),
    "cbbt_plus_prompt": Entry("CBBT+, prompt only", "token embeddings, features", "context", "#7A5C00", (3, 0, 90)),
    "cbbt_plus_logits": Entry("CBBT+, prompt by logits", "token embeddings, logits", "context", "#5C4A2A", (3, 0, 30)),
    "cbbt_plus": Entry("CBBT+", "token embeddings, features", "context, experts", "#7A1F00", "*"),
    "cbbt_tip": Entry("CBBT, cache adapter", "token embeddings, features", "context, cache keys, α, β", "#CC79A7", "D"),
    "bbt": Entry("BBT", "token embeddings, losses", "projected context", "#117733", "8"),
    "bpt_vlm": Entry("BPT-VLM", "pixels, image tokens, token embeddings, losses", "projected prompts", "#44AA99", "H"),
    "bpt_vlm_text": Entry("BPT-VLM, text side", "token embeddings, losses", "projected context", "#7755DD", (6, 1, 0)),
    "craft": Entry("CraFT", "token embeddings, logits", "projected context, head on logits", "#AA4499", (4, 1, 45)),
    "sharpzo": Entry("SharpZO", "token embeddings, losses", "projected context", "#E7298A", (7, 1, 0)),
    "zip": Entry("ZIP", "token embeddings, losses", "low-rank context", "#999933", "d"),
    "blackvip": Entry("BlackVIP", "pixels, losses", "image prompt decoder", "#4D4D00", "p"),
    "blackvip_pca": Entry("BlackVIP, PCA encoder", "pixels, losses", "image prompt decoder", "#330044", (3, 1, 0)),
    "lfa": Entry("LFA", "features", "linear map", "#332288", ">"),
    "linear_probe": Entry("Linear probe", "features", "class weights", "#8B4513", (5, 2, 0)),
    "cross_modal": Entry("Cross-modal probe", "features", "class weights", "#17BECF", (3, 1, 180)),
    "task_res": Entry("TaskRes", "features", "residual on class text", "#E377C2", "4"),
    "zs_lp": Entry("ZS-LP", "features", "class prototypes", "#6A8CAF", "2"),
    "clap": Entry("CLAP", "features", "class prototypes", "#1F4E79", "3"),
    "lp_plus": Entry("LP++", "features", "class weights, shares of text", "#B8860B", "1"),
    "gda": Entry("GDA", "features", "class weights, α", "#1B9E3F", (8, 1, 0)),
    "kernel_ridge": Entry("ProKeR", "features", "kernel coefficients, β, λ", "#762A83", (5, 1, 180)),
    "word_search": Entry("Word search (offline)", "text, features", "template", "#882255", "h"),
    "llm_search": Entry("LLM search over words", "text, features", "template", "#9900FF", (4, 1, 0)),
}

UNTUNED = ("zero_shot", "zero_shot_bare")  # draw no shots: one run stands for every number of shots and every seed


def label(method: str) -> str:
    """The method's name in figures and tables; a method of your own goes by its key."""
    return CATALOGUE[method].label if method in CATALOGUE else method


def method_order(methods) -> list[str]:
    """These methods, each once: first those of `CATALOGUE` in its order, then others by name."""
    known = list(CATALOGUE)
    return sorted(set(methods), key=lambda method: (known.index(method) if method in known else len(known), method))
