"""CBBT (Guo et al., 2023): prompt and residual adapter, tuned together.

Each step scores the perturbed prompts on the adapted features and trains the
adapter against the current prompts, both from the same batch.

What a loss query scores: one context on a batch of 32 shots.
"""

from cbbt.learning.fitting import Fitted
from cbbt.learning.tuning import EstimatedGradient, tune
from cbbt.methods.parts.start import residual_adapter, start_context


def fit(box, support, config, session) -> Fitted:
    adapter, optimizer = residual_adapter(box, config)
    return tune(
        box,
        support,
        config,
        session,
        adapter=adapter,
        adapter_optimizer=optimizer,
        context=start_context(box, support, config),
        prompt_gradient=EstimatedGradient(box, support.class_names, config),
    )
