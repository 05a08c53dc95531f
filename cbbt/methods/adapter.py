"""CBBT's adapter side alone: a residual adapter (CLIP-Adapter, Gao et al., IJCV 2024).

The prompts stay at CBBT's initial context ("a <class>."), so that `adapter` and
`cbbt` differ only in prompt tuning.
"""

from cbbt.learning.fitting import Fitted
from cbbt.learning.tuning import tune
from cbbt.methods.parts.start import residual_adapter, start_text


def fit(box, support, config, session) -> Fitted:
    adapter, optimizer = residual_adapter(box, config)
    text = start_text(box, support, config)
    return tune(box, support, config, session, adapter=adapter, adapter_optimizer=optimizer, text=text)
