"""CoOp (Zhou et al., IJCV 2022; github.com/KaiyangZhou/CoOp): a context by true gradients, the white-box reference.

As published: M random vectors N(0, 0.02²), here 16 or 4 of them, SGD with momentum 0.9
and weight decay 5e-4, a cosine after one epoch at 1e-5. Its rate, 2e-3 at D = 512, and
the length of training are chosen by this kit (configs/search_peers.yaml); images are encoded once, in fp32.
"""

from functools import partial

import torch

from cbbt.learning.fitting import Fitted
from cbbt.learning.tuning import ExactGradient, tune
from cbbt.methods.parts.start import start_context


def fit(box, support, config, session) -> Fitted:
    context, gradient = start_context(box, support, config), ExactGradient(box, support.class_names, config)
    momentum = partial(torch.optim.SGD, momentum=0.9)
    return tune(box, support, config, session, context=context, prompt_gradient=gradient, prompt_optimizer=momentum)
