"""The box: a model that answers queries and counts them.

Read `blackbox` and `ledger`, then `prompts`, `tokens` and `text_tower` (many contexts ×
class names, exact and fast); `models` loads the model behind the wall, from `weights`
that are known to fit, and only the wall imports it. Further modules:
`image_tokens`, `memory` and `service` (the same model with less informative answers). Nothing here depends on a method.
"""
