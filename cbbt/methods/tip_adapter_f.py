"""Tip-Adapter-F (Zhang et al., ECCV 2022): the cache's keys trained on the shots.

α and β are searched on the validation shots before training and again after it;
the last step is reported (the released code keeps the epoch best on test).
"""

from cbbt.box.prompts import fill_template
from cbbt.learning.fitting import Classifier, Fitted
from cbbt.learning.tuning import tune
from cbbt.methods.parts.start import cache_optimizer, search_cache, support_cache


def fit(box, support, config, session) -> Fitted:
    text = box.encode_texts(fill_template(support.template, support.class_names))
    cache = support_cache(support, config)
    search_cache(Classifier(text, cache, box.logit_scale), support)
    optimizer = cache_optimizer(cache, config)
    fitted = tune(box, support, config, session, adapter=cache, adapter_optimizer=optimizer, text=text)
    search_cache(fitted.last, support)
    return fitted
