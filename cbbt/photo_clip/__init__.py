"""The photo box: an ImageNet-trained image tower, and a text tower that the kit trained for it.

Read `model` (architecture, tokenizer, weights), then `image_tower` (where the image weights
come from, and the joint space), `lexicon` and `captions` (the text tower's training data) and
`pretrain`. Of the rest of the kit it imports only `cbbt.pretraining`.
"""
