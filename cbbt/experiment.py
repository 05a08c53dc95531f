"""One run: a flat configuration in, a record out.

`RunConfig` is the scientific configuration and nothing else; its hash is part of
the run's name, so a run has the same name on every machine. `run` fits a method,
judges it on the test split, which no fit ever receives, and writes the record
last and atomically: a folder without a record is a run that is not done.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import get_type_hints

import pandas as pd
import torch

from cbbt.blackbox import load_black_box, load_white_box
from cbbt.data import load_task
from cbbt.data.augment import AUGMENTATIONS
from cbbt.data.features import encode_items, encode_views
from cbbt.data.load import READERS
from cbbt.data.task import labels_of
from cbbt.estimators import DIFFERENCES, DIRECTIONS, FACTORS
from cbbt.fitting import Session, Support
from cbbt.ledger import Ledger
from cbbt.methods import METHODS
from cbbt.prompts import POSITIONS

RECORD = "record.json"
# Fields that runs were named without at first: at their defaults they stay outside the name.
SINCE = ("split", "template", "class_names")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's numbers. Defaults suit the embedded model.

    A setting left at None is the method's own (`Method.defaults`), resolved when
    the configuration is made. Raises ValueError (names the choices) or TypeError (names the type expected).
    """

    dataset: str  # a task that `cbbt.load_task` knows
    method: str = "cbbt"  # a key of `cbbt.METHODS`
    backbone: str = "mini"  # "mini" or an open_clip architecture
    pretrained: str | None = "default"  # see `cbbt.load_black_box`
    shots: int = 16  # training images per class; 0 for zero-shot alone
    seed: int = 1  # of the shots and of every other draw

    context_length: int = 1  # M
    context_init: str = "a"  # words, or "random"
    class_specific: bool = False  # one context per class
    position: str = "end"  # of the class name

    q: int | None = None  # directions per estimate
    epsilon: float | None = None  # step of the differences; max(1/d, 0.001) if None
    directions: str | None = None
    differences: str = "forward"
    factor: str = "dimension"
    scoring: str | None = None  # what perturbed prompts are scored on: "batch", or the whole "support"

    prompt_every: int | None = None  # steps of the loop per step of the prompt; the adapter makes every one
    epochs: int | None = None
    batch_size: int = 32
    prompt_lr: float | None = None
    weight_decay: float = 5e-4  # on the context, coupled, as in the released code
    clip_norm: float = 5.0
    warmup_epochs: int = 1
    warmup_lr: float = 1e-5

    adapter_ratio: float = 0.2
    adapter_reduction: int = 4
    adapter_lr: float = 2e-3
    cache_alpha: float = 1.0
    cache_beta: float = 5.5
    cache_lr: float = 1e-3

    augmentation: str = "none"  # chosen on validation for the embedded model; the paper's is "cbbt"
    views: int = 1  # augmented views per shot, used in turn; `epochs` or more: a fresh one each epoch
    split: str = "coop"  # of a benchmark; "torchvision" where CoOp's split file is not at hand
    template: str | None = None  # a sentence with {}; the task's own if None
    class_names: tuple | None = None  # in label order; the task's own if None
    judge: str = "test"  # the split that scores; "validation", the full pool, while choosing settings

    def __post_init__(self):
        _choose("method", self.method, METHODS)
        if isinstance(self.class_names, list):
            object.__setattr__(self, "class_names", tuple(self.class_names))  # as JSON and YAML write it
        for name, value in METHODS[self.method].defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name, expected in get_type_hints(RunConfig).items():
            value = getattr(self, name)
            if expected is float or expected == float | None:
                if isinstance(value, int) and not isinstance(value, bool):
                    object.__setattr__(self, name, value := float(value))
            if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
                raise TypeError(f"{name} must be {getattr(expected, '__name__', expected)}, got {value!r}")
        choices = {
            "position": POSITIONS,
            "scoring": ("batch", "support"),
            "directions": (*DIRECTIONS, "remembering"),
            "differences": DIFFERENCES,
            "factor": FACTORS,
            "augmentation": AUGMENTATIONS,
            "judge": ("test", "validation"),
            "split": READERS,
        }
        for name, allowed in choices.items():
            _choose(name, getattr(self, name), allowed)
        at_least = {"shots": 0, "seed": 1, "context_length": 1, "q": 1, "epochs": 1, "batch_size": 1, "views": 1, "prompt_every": 1}
        at_least |= {"warmup_epochs": 0, "adapter_reduction": 1, "weight_decay": 0, "cache_alpha": 0, "warmup_lr": 0}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("prompt_lr", "adapter_lr", "cache_lr", "clip_norm", "cache_beta"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.epsilon is not None and not self.epsilon > 0:
            raise ValueError(f"epsilon must be positive or None, got {self.epsilon}")
        if not 0 <= self.adapter_ratio <= 1:
            raise ValueError(f"adapter_ratio must lie in [0, 1], got {self.adapter_ratio}")
        if self.shots == 0 and METHODS[self.method].needs_shots:
            raise ValueError(f"method {self.method!r} needs shots ≥ 1; only zero_shot runs with 0")

    @classmethod
    def from_dict(cls, values: dict) -> RunConfig:
        """A configuration from a mapping; ValueError names unknown keys and the nearest valid ones."""
        valid = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in valid:
                near = difflib.get_close_matches(key, valid, n=3)
                raise ValueError(f"unknown setting {key!r}; nearest: {', '.join(near) or 'none'}; valid: {', '.join(valid)}")
        return cls(**values)

    @property
    def run_id(self) -> str:
        """A readable name that ends in a hash of every field."""
        values = dataclasses.asdict(self)
        for name in SINCE:
            if values[name] == getattr(RunConfig, name):
                del values[name]
        text = json.dumps(values, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        dataset = Path(self.dataset).name
        return f"{dataset}-{self.backbone}-{self.method}-{self.shots}shot-seed{self.seed}-{digest}".replace("/", "-")


def method_configs(methods, seeds, settings: dict, common: dict) -> list[RunConfig]:
    """One configuration per method and seed.

    `settings` holds fields for all methods and, under a method's name, fields for it
    alone; `common` fields win over both. Methods that need no shots get none.
    Raises ValueError for an unknown method or setting.
    """
    for method in methods:
        _choose("method", method, METHODS)
    shared = {key: value for key, value in settings.items() if key not in METHODS}
    configs = []
    for method in methods:
        values = shared | settings.get(method, {}) | common | {"method": method}
        if not METHODS[method].needs_shots:
            values["shots"] = 0
        configs += [RunConfig.from_dict(values | {"seed": seed}) for seed in seeds]
    return configs


def _choose(name: str, value, allowed) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is unknown, choose from {', '.join(allowed)}")


def run(
    config: RunConfig,
    out: str | Path | None = None,
    *,
    root: str | Path | None = None,
    cache: str | Path | None = None,
    device: str | None = None,
    workers: int = 0,
    progress: bool = False,
    save_every: float = 5.0,
) -> dict:
    """Carry out one run and return its record, a dict that JSON can hold.

    Args:
        out: folder of runs; the record is written to `out/<run_id>/record.json`.
            A finished run is read back, not repeated; a killed one goes on from
            its checkpoint and ends with the same numbers. None keeps nothing.
        root: folder of the benchmarks' images. device: None for a GPU if there is one.
        cache: folder that keeps image features for later runs (see
            `cbbt.data.features`); None encodes the images again in each run.
        workers: processes that decode images. save_every: seconds between checkpoints.

    The record has: config, run_id, scores (percent), selection, history (a row per
    epoch), queries of the fit at three grains, evaluation_queries, repeated_queries
    (asked again after a kill, less what `cache` answered), seconds, versions, commit, device.
    """
    folder = None if out is None else Path(out) / config.run_id
    if folder is not None:
        if (folder / RECORD).exists():
            return json.loads((folder / RECORD).read_text())
        folder.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    method = METHODS[config.method]
    words = {"split": config.split, "template": config.template, "class_names": config.class_names}
    task = load_task(config.dataset, shots=config.shots, seed=config.seed, root=root, **words)
    ledger = Ledger(journal=folder / "asked.jsonl" if folder else None)
    load = load_white_box if method.white_box else load_black_box
    box = load(config.backbone, config.pretrained, device=device, ledger=ledger)
    judge = box.with_ledger(Ledger())

    judged = task.test if config.judge == "test" else load_task(config.dataset, root=root, **words).val
    reading = {"cache": cache, "workers": workers, "progress": progress}
    features = encode_items(judge, judged, **reading)
    labels = labels_of(judged).to(box.device)
    column = f"{config.judge}_accuracy"
    support = _support(box, task, config, reading)
    session = Session(
        judge=judge,
        observe=lambda classifier: {column: classifier.accuracy(features, labels)},
        checkpoint=folder / "checkpoint.safetensors" if folder else None,
        save_every=save_every,
        progress=progress,
    )
    loaded = time.perf_counter()
    fitted = method.fit(box, support, config, session)
    ended = time.perf_counter()

    scores = {column: fitted.last.accuracy(features, labels)}
    if fitted.best_val is not None:
        scores[f"{column}_best_val"] = fitted.best_val.accuracy(features, labels)
    if fitted.history:
        # The best epoch on the judging split itself, as the official code selects: for comparison only.
        scores[f"{column}_official_selection"] = max(row[column] for row in fitted.history)
    record = {
        "run_id": config.run_id,
        "config": dataclasses.asdict(config),
        "scores": scores,
        "selection": "last step",
        "best_val_epoch": fitted.best_epoch,
        "n_classes": len(task.class_names),
        "n_judged": len(judged),
        "history": fitted.history,
        "queries": dict(ledger.counts),
        "evaluation_queries": dict(judge.ledger.counts),
        "repeated_queries": {grain: asked - ledger.counts[grain] for grain, asked in ledger.asked().items()},
        "seconds": {"load": loaded - begun, "fit": ended - loaded, "total": time.perf_counter() - begun},
        "versions": versions(),
        "commit": commit(),
        "device": device_name(box.device),
    }
    if folder is not None:
        partial = folder / (RECORD + ".partial")
        partial.write_text(json.dumps(record, indent=1))
        os.replace(partial, folder / RECORD)
        for leftover in ("checkpoint.safetensors", "asked.jsonl"):
            (folder / leftover).unlink(missing_ok=True)
    return record


def _support(box, task, config, reading: dict) -> Support:
    views = encode_views(
        box,
        task.train,
        views=min(config.views, config.epochs),
        augmentation=config.augmentation,
        mirror=task.mirror,
        seed=config.seed,
        **reading,
    )
    return Support(
        views=views,
        labels=labels_of(task.train).to(box.device),
        val_features=encode_items(box, task.val, **reading),
        val_labels=labels_of(task.val).to(box.device),
        class_names=task.class_names,
        template=task.template,
    )


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = {"cbbt": "cbbt", "torch": "torch", "open_clip": "open_clip_torch", "numpy": "numpy"}
    return {"python": platform.python_version()} | {name: version(package) for name, package in packages.items()}


def commit() -> str | None:
    """The source's git commit, with "+" if tracked files differ from it; None outside git."""
    here = Path(__file__).parent
    try:
        name = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "."], cwd=here).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return name.stdout.strip() + ("+" if dirty else "")


def device_name(device: torch.device) -> str:
    """The GPU's name, or "cpu" with the number of threads."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def load_records(folder: str | Path) -> list[dict]:
    """All finished runs under `folder`, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted(Path(folder).glob(f"*/{RECORD}"))]


def runs_table(records: list[dict]) -> pd.DataFrame:
    """One row per run: configuration, scores, queries, seconds, versions, commit."""
    rows = [
        {"run_id": record["run_id"]}
        | record["config"]
        | record["scores"]
        | record["queries"]
        | {"fit_seconds": round(record["seconds"]["fit"], 2), "n_judged": record["n_judged"]}
        | {f"{name}_version": number for name, number in record["versions"].items()}
        | {"commit": record["commit"], "device": record["device"]}
        for record in records
    ]
    return pd.DataFrame(rows)


def curves_table(records: list[dict]) -> pd.DataFrame:
    """One row per run and epoch: the histories, keyed by data set, method, shots and seed."""
    keys = ("dataset", "backbone", "method", "shots", "seed")
    rows = [
        {key: record["config"][key] for key in keys} | row for record in records for row in record["history"]
    ]
    return pd.DataFrame(rows)
