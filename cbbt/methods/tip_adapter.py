"""Tip-Adapter (Zhang et al., ECCV 2022): a cache of the shots added to zero-shot CLIP.

Nothing is trained; α and β are chosen on held-out shots (the released code searches on
the whole validation split, and on the test split for ImageNet).
"""

from cbbt.learning.fitting import Classifier, Fitted
from cbbt.methods.parts.start import start_text, support_cache


def fit(box, support, config, session) -> Fitted:
    text = start_text(box, support, config)
    return Fitted(Classifier(text, support_cache(text, support, config, box.logit_scale), box.logit_scale))
