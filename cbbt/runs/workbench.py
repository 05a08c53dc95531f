"""The workbench: models and encoded evaluation images, shared by consecutive runs.

A workbench lives as long as its caller keeps it. Each run still has its own boxes and
ledgers, which count every query that it would have made alone.
"""

from __future__ import annotations

import os

import torch

from cbbt.box.access import require_access
from cbbt.box.address import is_address
from cbbt.box.blackbox import BlackBox, load_black_box, load_white_box
from cbbt.box.ledger import Ledger
from cbbt.box.service import PoorBox
from cbbt.box.weights import weights_file
from cbbt.data.features import encode_items
from cbbt.data.pixels import Pixels
from cbbt.data.task import labels_of, split_digest
from cbbt.learning.fitting import Split


class Workbench:
    """Loads models and encodes splits once for all runs that use it.

    boxes: name → box, for backbones of your own, such as a `cbbt.box.remote.features.FeatureBox`, used by runs whose
        `backbone` is the name. key: API key for an address; the environment variable CBBT_KEY if None.
    """

    def __init__(self, boxes: dict[str, BlackBox] | None = None, key: str | None = None):
        self.own, self.key = dict(boxes or {}), key
        self._boxes: dict[tuple, BlackBox] = {}
        self._features: dict[tuple, torch.Tensor] = {}

    def box(self, config, white: bool, device: str | None, ledger: Ledger) -> BlackBox:
        """A box for `config`, counted in `ledger`; a weights file is read again when it has changed.

        Raises `ServiceRefused` for a method that needs more than the box has.
        """
        if config.backbone in self.own:
            return self._granted(self.own[config.backbone], config).with_ledger(ledger)
        file = weights_file(config.pretrained)
        state = file and os.stat(file)
        key = (config.backbone, config.pretrained, white, device, state and (state.st_mtime_ns, state.st_size))
        if key not in self._boxes:
            if is_address(config.backbone) or not white:
                self._boxes[key] = load_black_box(config.backbone, config.pretrained, device=device, key=self.key)
            else:
                self._boxes[key] = load_white_box(config.backbone, config.pretrained, device=device)
        box = self._granted(self._boxes[key], config).with_ledger(ledger)
        return box if config.service == "full" else PoorBox(box, config.service, config.seed)

    def is_elsewhere(self, config) -> bool:
        """Whether the model is one that the configuration's name does not identify."""
        return config.backbone in self.own or is_address(config.backbone)

    @staticmethod
    def _granted(box: BlackBox, config) -> BlackBox:
        require_access(box.access, config.method, f"the box {config.backbone}")
        return box

    def split(self, judge: BlackBox, items, reading: dict) -> Split:
        """`items` to evaluate on, encoded by `judge`, whose ledger is charged each time.

        `reading`: options of `cbbt.data.features.encode_items`.
        """
        key = (judge.fingerprint(), judge.device, split_digest(items), *(str(item.path) for item in items[:1]))
        if key not in self._features:
            self._features[key] = encode_items(judge, items, **reading)
        else:
            judge.ledger.charge("images", len(items), answered=False)
        return Split(self._features[key], labels_of(items).to(judge.device), Pixels(items, judge.preprocess))
