"""Tip-Adapter-F (Zhang et al., ECCV 2022): the cache's keys trained on the shots.

α and β are chosen on held-out shots before training and then kept: no shot can be held out
of trained keys. The last step is reported (the released code keeps the best epoch on test,
and searches α and β once more after it).
"""

from cbbt.learning.fitting import Fitted
from cbbt.learning.tuning import tune
from cbbt.methods.parts.start import cache_optimizer, start_text, support_cache


def fit(box, support, config, session) -> Fitted:
    text = start_text(box, support, config)
    cache = support_cache(text, support, config, box.logit_scale)
    return tune(box, support, config, session, adapter=cache, adapter_optimizer=cache_optimizer(cache, config), text=text)
