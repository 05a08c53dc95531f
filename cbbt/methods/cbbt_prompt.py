"""CBBT's prompt side alone (Guo et al., 2023): the context by estimated gradients.

What a loss query scores: one context on a batch of 32 shots.
"""

from cbbt.learning.fitting import Fitted
from cbbt.learning.tuning import EstimatedGradient, tune
from cbbt.methods.parts.start import start_context


def fit(box, support, config, session) -> Fitted:
    context, gradient = start_context(box, support, config), EstimatedGradient(box, support.class_names, config)
    return tune(box, support, config, session, context=context, prompt_gradient=gradient)
