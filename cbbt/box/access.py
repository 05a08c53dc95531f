"""What a box takes and gives, in the words of the methods' table (`cbbt.catalogue`).

A method that needs more than a box has is refused before its first query. Features of
prompts that are not given are *sealed*: they can be handed back to the box, in a
question about losses or logits, and not computed with.
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

    Without a word of features, logits or losses, it gives features. Whoever answers about prompts takes images
    in any case. Raises ValueError for an unknown grant, or for nothing to ask about.
    """
    for grant in grants:
        choose("grant", grant, GRANTS)
    access = {GRANTS[grant] for grant in grants}
    if not access & {"text", "token embeddings"}:
        raise ValueError(
            f"grant {', '.join(grants) or 'nothing'}: add texts or embeddings, else there are no classes to ask about"
        )
    if access & {"token embeddings", *GIVES}:
        access.add("pixels")
    return frozenset(access if access & set(GIVES) else access | {"features"})


class ServiceRefused(ValueError):
    """A question that the service does not answer."""


def require_access(access: frozenset[str], method: str, who: str) -> None:
    """Raise `ServiceRefused`, which says what is needed and what `who` has, for a method that needs more than `access`.

    Who learns nothing is served by all. A method that is not in `cbbt.catalogue` is let in, and refused by what is sealed.
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
    """Features of prompts that can be picked from and handed back to the box, and not computed with."""

    ALLOWED = {
        torch.Tensor.__getitem__, torch.Tensor.__len__, torch.Tensor.__iter__, torch.Tensor.unbind, torch.Tensor.split,
        torch.split, torch.Tensor.detach, torch.Tensor.as_subclass, torch.Tensor.shape.__get__, torch.Tensor.device.__get__,
        torch.Tensor.dim, torch.Tensor.ndim.__get__,
    }  # fmt: skip

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), named=None):
        if function not in cls.ALLOWED:
            name = getattr(function, "__name__", function)
            raise ServiceRefused(f"this service gives no features of prompts: {name} of them is not to be had, only losses are")
        return super().__torch_function__(function, types, arguments, named)

    def classify(self, features: torch.Tensor, box) -> torch.Tensor:
        """Logits (B, C) of unit-norm image features (B, E) for this text (C, E), as a service gives to those whom it serves.

        `box`: the handle that pays, where this is a question.
        """
        return box.logit_scale * features @ self.as_subclass(torch.Tensor).T

    def __iter__(self):
        return iter(self.unbind(0))
