"""The configuration of one run: flat, checked on creation, and named by its hash.

`RunConfig` holds only the scientific configuration: paths, devices and workers are
arguments of `cbbt.run`. Settings of a single method (a population, a projection) are
in the method's own `Settings` and are given under `options`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass, field

from cbbt.box.access import require_access
from cbbt.box.address import check_address, is_address
from cbbt.box.ledger import GRAINS
from cbbt.box.prompts import POSITIONS
from cbbt.box.service import SERVICES
from cbbt.checks import check_ranges, check_types, choose, nearest, require_distinct
from cbbt.data.augment import AUGMENTATIONS
from cbbt.data.cards import CARDS, EMBEDDED
from cbbt.data.load import READERS
from cbbt.data.names import read_class_names
from cbbt.data.targets import CLASSES, check_target
from cbbt.gradients.directions import DIRECTIONS, LEARNING
from cbbt.gradients.estimators import DIFFERENCES, FACTORS
from cbbt.methods import DEFAULTS, METHODS


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run's numbers. Defaults suit the embedded model.

    A setting left at None takes the method's default (`Method.defaults`, else `cbbt.methods.DEFAULTS`), resolved on
    creation. Raises ValueError (names the choices) or TypeError (names the expected type).
    """

    dataset: str  # a task that `cbbt.load_task` knows
    method: str = "cbbt"  # a key of `cbbt.METHODS`
    backbone: str = "mini"  # "mini", "photo", an open_clip architecture, or the address of a served box
    pretrained: str | None = "default"  # see `cbbt.load_black_box`
    shots: int = 16  # training images per class; 0 only for zero-shot
    seed: int = 1  # of the shots and of every other draw

    start: str | None = None  # class text of methods that tune no prompt: the initial "context", or the task's "template"
    context_length: int | None = None  # M
    context_init: str | None = None  # words, or "random"
    class_specific: bool = False  # one context per class
    position: str = "end"  # of the class name

    q: int | None = None  # directions per estimate
    epsilon: float | None = None  # step of the differences; max(1/d, 0.001) if None
    directions: str | None = None
    differences: str = "forward"
    factor: str = "dimension"
    scoring: str | None = None  # what perturbed prompts are scored on: "batch", or the whole "support"

    prompt_every: int | None = None  # steps of the loop per step of the prompt; the adapter makes all of them
    fresh_text: bool = False  # encode the class text again after a step of the prompt, for the adapter's step
    epochs: int = 50
    min_epoch_steps: int = 5  # per epoch; shots that fill fewer batches are repeated
    batch_size: int = 32
    prompt_lr: float | None = None
    weight_decay: float = 5e-4  # on the context, coupled, as in the released code
    clip_norm: float = 5.0
    warmup_epochs: int = 1
    warmup_lr: float = 1e-5
    cosine: str = "epoch"  # learning rates fall per "epoch", or per "step"

    adapter_ratio: float | None = None
    adapter_reduction: int = 4
    adapter_lr: float | None = None
    adapter_weight_decay: float = 0.0  # coupled
    adapter_start: int = 0  # epochs before the adapter is used and trained
    only_adapter: bool = False  # from then on the prompt is fixed
    cache_alpha: float | None = None  # None: chosen on held-out shots
    cache_beta: float | None = None  # likewise
    cache_lr: float = 1e-3

    augmentation: str = "none"  # the paper's is "cbbt"
    views: int = 1  # augmented views per shot, used in turn; with `epochs` or more, each epoch has a new one
    split: str = "coop"  # of a benchmark; "torchvision" if CoOp's split file is not available
    template: str | None = None  # a sentence with {}; the task's own if None
    class_names: tuple | dict | None = None  # in label order, or folder → name, or a file of either; None: the task's own
    judge: str = "test"  # the evaluation split; "validation", the pool without the shots, for choosing settings
    classes: str = "all"  # "base": fitted and evaluated on the first half of them (`cbbt.data.targets`)
    targets: list = field(default_factory=list)  # further test sets: "new", a shift, or a data set
    service: str = "full"  # of `cbbt.box.service.SERVICES`; all but "full" answer less, or less exactly

    # Budgets. A search with a budget on its queries runs until that is spent, however long it would run
    # without; steps that cost no query (an adapter's) are made as planned, with any budget.
    max_class_prompts: int | None = None
    max_loss_queries: int | None = None
    max_images: int | None = None
    options: dict = field(default_factory=dict)  # fields of the method's own `Settings`

    def __post_init__(self):
        choose("method", self.method, METHODS)
        method = METHODS[self.method]
        if self.class_names is not None:
            object.__setattr__(self, "class_names", read_class_names(self.class_names))  # the names, not the path of their file
        for name, value in (DEFAULTS | method.defaults).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        check_types(self)
        choices = {
            "start": ("context", "template"),
            "position": POSITIONS,
            "cosine": ("epoch", "step"),
            "scoring": ("batch", "support"),
            "directions": (*DIRECTIONS, *LEARNING),
            "differences": DIFFERENCES,
            "factor": FACTORS,
            "augmentation": AUGMENTATIONS,
            "judge": ("test", "validation"),
            "classes": CLASSES,
            "service": SERVICES,
            "split": READERS,
        }
        for name, allowed in choices.items():
            choose(name, getattr(self, name), allowed)
        counts = ("seed", "context_length", "q", "epochs", "min_epoch_steps", "batch_size", "views", "prompt_every")
        at_least = {"shots": 0, "adapter_reduction": 1} | dict.fromkeys(counts, 1)
        at_least |= dict.fromkeys(("warmup_epochs", "warmup_lr", "weight_decay", "adapter_weight_decay", "adapter_start"), 0)
        at_least |= {f"max_{grain}": 1 for grain in self.budget}
        check_ranges(self, at_least, positive=("prompt_lr", "adapter_lr", "cache_lr", "clip_norm"))
        for name in ("epsilon", "cache_alpha", "cache_beta"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive or None, got {value}")
        if self.adapter_start >= self.epochs:
            raise ValueError(f"adapter_start must be less than the {self.epochs} epochs, got {self.adapter_start}")
        if self.only_adapter and not (self.adapter_start and self.fresh_text):
            raise ValueError(
                "only_adapter needs adapter_start ≥ 1, so that the prompt is tuned by then, "
                "and fresh_text=True, so that the adapter is trained against the final prompt"
            )
        if not 0 <= self.adapter_ratio <= 1:
            raise ValueError(f"adapter_ratio must lie in [0, 1], got {self.adapter_ratio}")
        require_access(SERVICES[self.service].access, self.method, f"the service {self.service!r}")
        if is_address(self.backbone):
            object.__setattr__(self, "backbone", check_address(self.backbone))
            if self.service != "full":
                raise ValueError(f"service={self.service!r} needs a local model: the server {self.backbone} sets its own grants")
        if self.targets:
            require_distinct("targets", self.targets)
            if self.judge == "validation":
                raise ValueError("targets are test images and not allowed with judge='validation', where settings are chosen")
        for target in self.targets:
            check_target(target, self.dataset, self.classes)
        if self.shots == 0 and method.needs_shots:
            raise ValueError(f"method {self.method!r} needs shots ≥ 1; only zero_shot runs with 0")
        if self.options or method.settings:
            object.__setattr__(self, "options", dataclasses.asdict(self.settings))

    @property
    def settings(self):
        """The method's own `Settings`, checked. Raises ValueError for an option it does not have."""
        kind = METHODS[self.method].settings
        valid = [] if kind is None else [option.name for option in dataclasses.fields(kind)]
        for name in self.options:
            if name not in valid:
                raise ValueError(f"method {self.method!r} has no option {name!r}; {nearest(name, valid)}")
        return kind(**self.options)

    @property
    def budget(self) -> dict[str, int]:
        """Grain → largest count allowed, for the grains that have one."""
        limits = {grain: getattr(self, f"max_{grain}") for grain in GRAINS}
        return {grain: limit for grain, limit in limits.items() if limit is not None}

    @classmethod
    def from_dict(cls, values: dict) -> RunConfig:
        """A configuration from a mapping, in which the method's options may be mixed with the other fields.

        Raises ValueError for an unknown key; names the nearest valid ones.
        """
        valid = [field.name for field in dataclasses.fields(cls)]
        method = METHODS.get(values.get("method", cls.method))
        own = [option.name for option in dataclasses.fields(method.settings)] if method and method.settings else []
        for key in values:
            if key not in valid + own:
                raise ValueError(f"unknown setting {key!r}; {nearest(key, valid + own)}")
        options = {key: value for key, value in values.items() if key in own}
        rest = {key: value for key, value in values.items() if key not in own}
        return cls(**rest | ({"options": rest.get("options", {}) | options} if options else {}))

    @property
    def dataset_name(self) -> str:
        """The data set's name in records and tables: see `dataset_name`."""
        return dataset_name(self.dataset)

    @property
    def run_id(self) -> str:
        """A readable name that ends in a hash of every field."""
        values = dataclasses.asdict(self) | {"dataset": self.dataset_name, "targets": [*map(dataset_name, self.targets)]}
        text = json.dumps(values, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        backbone = self.backbone.replace("://", "-").replace(":", "-")  # an address
        name = f"{self.dataset_name}-{backbone}-{self.method}-{self.shots}shot-seed{self.seed}-{digest}"
        return re.sub(r"[/\\\s]", "-", name.removeprefix("./"))


def dataset_name(dataset: str) -> str:
    """The name of a task or benchmark; for a folder its own name, however its path is written.

    A folder with the name of a task or benchmark keeps "./" in front.
    """
    if dataset in (*EMBEDDED, *CARDS):
        return dataset
    name = os.path.basename(os.path.abspath(os.path.expanduser(dataset)))
    return f"./{name}" if name in (*EMBEDDED, *CARDS) else name


def method_configs(methods, seeds, settings: dict, common: dict) -> list[RunConfig]:
    """One configuration per method and seed.

    `settings` holds fields for all methods and, under a method's name, fields for that
    method; fields of `common` have parameters of their own and are not allowed in it.
    Methods that need no shots get none. Raises ValueError for an unknown method or
    setting, one that is also in `common`, or nothing to run.
    """
    for title, entries in (("methods", methods), ("seeds", seeds)):
        require_distinct(title, entries)
    for method in methods:
        choose("method", method, METHODS)
    shared = {key: value for key, value in settings.items() if key not in METHODS}
    own = {key: value for key, value in settings.items() if key in METHODS}
    for method, values in own.items():
        choose("settings for a method", method, methods)
        if not isinstance(values, dict):
            raise TypeError(f"settings of {method} must be fields and values, such as {{q: 16}}, got {values!r}")
    for name in [*shared, *(name for values in own.values() for name in values)]:
        if name in common:
            raise ValueError(f"{name} is not allowed in the settings: it has its own parameter")
    configs = []
    for method in methods:
        values = shared | own.get(method, {}) | common | {"method": method}
        if not METHODS[method].needs_shots:
            values["shots"] = 0
        configs += [RunConfig.from_dict(values | {"seed": seed}) for seed in seeds]
    return configs
