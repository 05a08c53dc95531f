"""Building blocks of the methods.

`start` (initial contexts, adapters and caches), `evolution` and `spsa` (optimisers of the searches),
`proposers` (of templates), `image_decoder` and `image_encoders` (of BlackVIP).
"""
