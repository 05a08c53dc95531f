"""Zero-shot CLIP (Radford et al., 2021): the class text before any tuning, nothing learned.

`zero_shot` uses the hand-written template, `zero_shot_bare` the prompt from which
CBBT starts ("a <class>."): their difference is due to wording, not to a method.
"""

from cbbt.adapters import IdentityAdapter
from cbbt.learning.fitting import Classifier, Fitted
from cbbt.methods.parts.start import start_text


def fit(box, support, config, session) -> Fitted:
    return Fitted(Classifier(start_text(box, support, config), IdentityAdapter(), box.logit_scale))
