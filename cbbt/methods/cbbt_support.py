"""CBBT scored on the whole support set: CBBT's loop at less than a twentieth of its text queries.

Text queries are what CBBT costs, and their answers do not depend on the images. So

- the same perturbed text features are scored on all views of the whole support
  set, not on one batch of 32: less noise without further text queries;
- directions are orthonormal;
- with less noise the prompt can take larger and fewer steps: one for every three
  of the adapter's, which cost no query.

With q = 7 the prompt needs 8 prompt sets every third step, while CBBT's q = 64 needs
65 in every step: 1/24. Notebook A3 shows the effect of each part. `fit` is that of
`cbbt` (`cbbt_prompt` without adapter); only the settings differ, so each can be
switched back separately.

What a loss query scores: one context on all views of all shots.
"""

DEFAULTS = {"q": 7, "directions": "orthogonal", "scoring": "support", "prompt_every": 3}
