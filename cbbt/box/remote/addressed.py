"""The box for an address."""

from __future__ import annotations

import torch

from cbbt.box.address import FEATURES, check_address, key_for
from cbbt.box.blackbox import BlackBox
from cbbt.box.ledger import Ledger
from cbbt.box.remote.features import openai_features
from cbbt.box.remote.served import RemoteBox


def box_at(address: str, pretrained: str | None, key: str | None, *, device: torch.device, ledger: Ledger | None) -> BlackBox:
    """The box at `address`; see `cbbt.load_black_box` and `cbbt.box.address`.

    Raises ValueError for an invalid address, for `pretrained` given to a server that has one fixed model, and
    for a feature service without a model name.
    """
    address = check_address(address)
    if not address.startswith(FEATURES):
        if pretrained != "default":
            raise ValueError(f"{address} serves one fixed model: leave pretrained at 'default', got {pretrained!r}")
        return RemoteBox(address, key, device=device, ledger=ledger)
    if pretrained in (None, "default"):
        raise ValueError(f"{address} serves several models: give a name as pretrained, such as 'jina-clip-v2'")
    return openai_features(address.removeprefix(FEATURES), pretrained, key_for(key), device=device, ledger=ledger)
