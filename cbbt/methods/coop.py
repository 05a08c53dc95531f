"""CoOp (Zhou et al., IJCV 2022): the context by true gradients, the white-box reference.

The same loop, start, optimiser and schedule as `cbbt_prompt`, so that the two
differ in nothing but the source of the gradient. CoOp's published setting is
M = 16 random vectors (`context_length=16, context_init="random"`) and SGD.
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
