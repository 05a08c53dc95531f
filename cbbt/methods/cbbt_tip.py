"""CBBT with a cache adapter in place of the residual one (Guo et al., 2023).

The cache's logits join the loss that the perturbed prompts are scored with, and
its keys are trained against the current prompts. α and β are searched on the
validation shots at the initial prompts and once more at the end, as in Tip-Adapter-F.
"""

from cbbt.learning.fitting import Classifier, Fitted
from cbbt.learning.tuning import EstimatedGradient, tune
from cbbt.methods.parts.start import cache_optimizer, search_cache, start_context, start_text, support_cache


def fit(box, support, config, session) -> Fitted:
    cache = support_cache(support, config)
    search_cache(Classifier(start_text(box, support, config), cache, box.logit_scale), support)
    fitted = tune(
        box,
        support,
        config,
        session,
        adapter=cache,
        adapter_optimizer=cache_optimizer(cache, config),
        context=start_context(box, support, config),
        prompt_gradient=EstimatedGradient(box, support.class_names, config),
    )
    search_cache(fitted.last, support)
    return fitted
