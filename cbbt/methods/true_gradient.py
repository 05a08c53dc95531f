"""CBBT's prompt side with the true gradient, through the white box: what the estimate is measured by.

The same loop, start, optimiser and schedule as `cbbt_prompt`, so that the two
differ in nothing but the source of the gradient. It bounds what better estimates can
bring to this prompt, not what prompts can do: for that see `coop`.
"""

from cbbt.adapters import IdentityAdapter
from cbbt.learning.fitting import Fitted
from cbbt.learning.tuning import ExactGradient, tune
from cbbt.methods.parts.start import start_context


def fit(box, support, config, session) -> Fitted:
    return tune(
        box,
        support,
        config,
        session,
        adapter=IdentityAdapter(),
        context=start_context(box, support, config),
        prompt_gradient=ExactGradient(box, support.class_names, config),
    )
