"""The photo box: an ImageNet-trained image tower, and a text tower that the kit trained towards it.

Read `model` (architecture, tokenizer, weights), then `image_tower` (where the image weights
come from, and the joint space), `lexicon` and `captions` (what the text tower was told) and
`pretrain`. Nothing of the kit but `cbbt.pretraining` comes in.
"""
