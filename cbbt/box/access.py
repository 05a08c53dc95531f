"""Access: what a box takes and gives, in the terms of `cbbt.catalogue`.

A method that needs more than a box offers is refused before its first query. Prompt
features that the box does not give are *sealed*: they can be passed back to the box in a
query for losses or logits, but not computed with.
"""

from __future__ import annotations

import torch

from cbbt.box.address import GRANTS
from cbbt.catalogue import CATALOGUE
from cbbt.checks import choose

TAKES = ("text", "pixels", "image tokens", "token embeddings")
GIVES = ("features", "logits", "losses")


def granted(grants: list[str]) -> frozenset[str]:
    """What a server with these grants takes and gives.

    If features, logits and losses are all missing, it gives features. A server that answers queries about prompts
    always takes images. Raises ValueError for an unknown grant, or if neither texts nor embeddings are granted.
    """
    for grant in grants:
        choose("grant", grant, GRANTS)
    access = {GRANTS[grant] for grant in grants}
    if not access & {"text", "token embeddings"}:
        raise ValueError(f"grant {', '.join(grants) or 'nothing'}: add texts or embeddings, otherwise no classes can be queried")
    if access & {"token embeddings", *GIVES}:
        access.add("pixels")
    return frozenset(access if access & set(GIVES) else access | {"features"})


class ServiceRefused(ValueError):
    """A query that the service does not answer."""


def require_access(access: frozenset[str], method: str, who: str) -> None:
    """Raise `ServiceRefused`, which says what is needed and what `who` has, for a method that needs more than `access`.

    A method that learns nothing runs on any service. One that is not in `cbbt.catalogue` is let in; sealed features stop it.
    """
    entry = CATALOGUE.get(method)
    if entry is None or entry.learns == "nothing":
        return
    if lacking := [need for need in entry.access.split(", ") if need not in access]:
        given, taken = [word for word in GIVES if word in access], [word for word in TAKES if word in access]
        takes = "" if access >= set(TAKES) else f"takes {', '.join(taken)} and "
        raise ServiceRefused(
            f"method {method!r} needs {entry.access}; {who} {takes}gives {', '.join(given)}, and no {' and no '.join(lacking)}"
        )


class Sealed(torch.Tensor):
    """Prompt features that can be indexed and passed back to the box, but not computed with."""

    ALLOWED = {
        torch.Tensor.__getitem__, torch.Tensor.__len__, torch.Tensor.__iter__, torch.Tensor.unbind, torch.Tensor.split,
        torch.split, torch.Tensor.detach, torch.Tensor.as_subclass, torch.Tensor.shape.__get__, torch.Tensor.device.__get__,
        torch.Tensor.dim, torch.Tensor.ndim.__get__,
    }  # fmt: skip

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), named=None):
        if function not in cls.ALLOWED:
            name = getattr(function, "__name__", function)
            raise ServiceRefused(f"this service gives no prompt features, so {name} of them is not available: query for losses")
        return super().__torch_function__(function, types, arguments, named)

    def classify(self, features: torch.Tensor, box) -> torch.Tensor:
        """Logits (B, C) of unit-norm image features (B, E) for this text (C, E), as the service gives them to its users.

        `box`: the handle that is charged if this needs a query.
        """
        return box.logit_scale * features @ self.as_subclass(torch.Tensor).T

    def __iter__(self):
        return iter(self.unbind(0))
