"""The embedded default model: a small CLIP and the procedural world it was pre-trained on.

Read `model` (architecture, tokenizer, weights), then `world` and `captions` (what it was
shown) and `pretrain`; the rest draws pictures. Nothing of the kit comes in.
"""
