"""The box: a model that answers questions, and counts them.

Read `blackbox` and `ledger`, then `prompts` and `text_tower` (many contexts × class
names, exact and fast); `models` loads what stands behind the wall, and only the wall
imports it. Beside them `image_tokens` and `memory`. Nothing here knows a method.
"""
