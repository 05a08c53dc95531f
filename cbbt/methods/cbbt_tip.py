"""CBBT with a cache adapter in place of the residual one (Guo et al., 2023).

The cache's logits enter the loss of the perturbed prompts, and its keys are trained
against the current prompts. α and β are chosen on held-out shots at the initial
prompts, and then kept.
"""

from cbbt.learning.fitting import Fitted
from cbbt.learning.tuning import EstimatedGradient, tune
from cbbt.methods.parts.start import cache_optimizer, start_context, start_text, support_cache


def fit(box, support, config, session) -> Fitted:
    cache = support_cache(start_text(box, support, config), support, config, box.logit_scale)
    return tune(
        box,
        support,
        config,
        session,
        adapter=cache,
        adapter_optimizer=cache_optimizer(cache, config),
        context=start_context(box, support, config),
        prompt_gradient=EstimatedGradient(box, support.class_names, config),
    )
