"""Tip-Adapter (Zhang et al., ECCV 2022): a cache of the shots beside zero-shot CLIP.

Nothing is trained; α and β are searched on the validation shots (the released
code searches on the whole validation split, and on the test split for ImageNet).
"""

from cbbt.box.prompts import fill_template
from cbbt.learning.fitting import Classifier, Fitted
from cbbt.methods.parts.start import search_cache, support_cache


def fit(box, support, config, session) -> Fitted:
    text = box.encode_texts(fill_template(support.template, support.class_names))
    classifier = Classifier(text, support_cache(support, config), box.logit_scale)
    search_cache(classifier, support)
    return Fitted(classifier)
