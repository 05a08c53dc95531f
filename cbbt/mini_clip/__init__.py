"""The embedded default model: a small CLIP and the procedural world it was pre-trained on.

Read `model` (architecture, tokenizer, weights), then `world` and `captions` (its training
data) and `pretrain`; the rest draws pictures. Independent of the rest of the kit.
"""
