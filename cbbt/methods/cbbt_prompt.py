"""CBBT's prompt side alone (Guo et al., 2023): the context by estimated gradients.

What a loss query scores: one context on a batch of 32 shots.
"""

from cbbt.adapters import IdentityAdapter
from cbbt.learning.fitting import Fitted
from cbbt.learning.tuning import EstimatedGradient, tune
from cbbt.methods.parts.start import start_context


def fit(box, support, config, session) -> Fitted:
    return tune(
        box,
        support,
        config,
        session,
        adapter=IdentityAdapter(),
        context=start_context(box, support, config),
        prompt_gradient=EstimatedGradient(box, support.class_names, config),
    )
