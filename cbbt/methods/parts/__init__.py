"""What several methods share, or what one is built of; no method is in here.

`start` (contexts, adapters and caches to start from), `evolution` and `spsa` (searchers),
`proposers` (of words), `image_decoder` and `image_encoders` (of BlackVIP).
"""
