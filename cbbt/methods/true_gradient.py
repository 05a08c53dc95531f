"""CBBT's prompt side with the true gradient, through the white box: the reference for the estimate.

The same loop, initial context, optimiser and schedule as `cbbt_prompt`, so that the two
differ only in the source of the gradient. It bounds what better estimates can add to
this prompt, not what prompts can do: for that see `coop`.
"""

from cbbt.learning.fitting import Fitted
from cbbt.learning.tuning import ExactGradient, tune
from cbbt.methods.parts.start import start_context


def fit(box, support, config, session) -> Fitted:
    context, gradient = start_context(box, support, config), ExactGradient(box, support.class_names, config)
    return tune(box, support, config, session, context=context, prompt_gradient=gradient)
