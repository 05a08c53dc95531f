"""CBBT scored on the whole support: CBBT's loop at less than a twentieth of its text queries.

Text queries are what CBBT costs, and their answers do not depend on the images. So

- the same perturbed text features are scored on the whole support set, on all
  views, in place of one batch of 32: less noise for no further text query;
- directions are orthonormal;
- with less noise the prompt affords larger and fewer steps: one in three of the
  adapter's, which cost no query.

With q = 7 a step of the prompt asks for 8 prompt sets every third step, where
CBBT's q = 64 asks for 65 every step: 1/24. What each part brings is in notebook A3.
`fit` is that of `cbbt` (`cbbt_prompt` without adapter); only the settings differ, so
each may be switched back alone.

What a loss query scores: one context on all shots, in all their views.
"""

DEFAULTS = {"q": 7, "directions": "orthogonal", "scoring": "support", "prompt_every": 3}
