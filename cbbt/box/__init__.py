"""The box: a model that answers questions, and counts them.

Read `blackbox` and `ledger`, then `prompts`, `tokens` and `text_tower` (many contexts ×
class names, exact and fast); `models` loads the model behind the wall, from `weights`
that are known to fit, and only the wall imports it. Beside them
`image_tokens`, `memory` and `service` (the same model, answering less). Nothing here knows a method.
"""
