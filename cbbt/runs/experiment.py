"""One run: a configuration in, a record out.

`run` fits a method, evaluates it on the test split, which no fit ever receives, and
writes the record last and atomically: a folder without a record is an unfinished
run. `RunConfig`, which names the run, is in `cbbt.runs.config`.
"""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from pathlib import Path

import torch
from tqdm.auto import tqdm

from cbbt.adapters import IdentityAdapter
from cbbt.box.ledger import Ledger
from cbbt.box.memory import peak_memory
from cbbt.box.service import SERVICES
from cbbt.data.features import encode_items, encode_views
from cbbt.data.load import load_task
from cbbt.data.names import require_distinct_prompts
from cbbt.data.pixels import Pixels
from cbbt.data.targets import Target, find_target, half_of
from cbbt.data.task import DataError, Task, identity, labels_of
from cbbt.files import locked, whole_file
from cbbt.learning.fitting import Classifier, Session, Support, accuracy_of
from cbbt.learning.judging import expected_calibration_error, fitting_logit_scale, judge_elsewhere
from cbbt.methods import METHODS
from cbbt.methods.parts.start import bare_text, start_text
from cbbt.provenance import commit, versions
from cbbt.results.records import RECORD, read_record_file
from cbbt.runs.config import RunConfig, dataset_name
from cbbt.runs.origin import origin_of, require_same_origin
from cbbt.runs.workbench import Workbench

CHECKPOINT, JOURNAL, ORIGIN, LOCK = "checkpoint.safetensors", "asked.jsonl", "origin.json", "run.lock"


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
    workbench: Workbench | None = None,
) -> dict:
    """Carry out one run and return its record, a dict that JSON can hold.

    Args:
        out: folder of runs; the record is written to `out/<run_id>/record.json`.
            A finished run is read back, not repeated; a killed one resumes from its
            checkpoint and ends with the same numbers; one that another process works
            on is waited for. None keeps nothing.
        root: folder of the benchmarks' images. device: None for a GPU if there is one.
        cache: folder that keeps image features for later runs (see
            `cbbt.data.features`); None encodes the images again in each run.
        workers: processes that decode images. save_every: seconds between checkpoints.
        workbench: shares models and evaluation images with earlier runs.

    The record has: config, run_id, task (its name), origin (see `cbbt.runs.origin`),
    scores (percent; `_ece` is the calibration error), selection, history (a row per epoch), queries of the fit at three
    grains, evaluation_queries, repeated_queries (repeated after a kill, without those
    answered from `cache`), the number of learned parameters, seconds, peak_megabytes (of the
    fit), versions, commit, device. A run with targets has targets: "own", the run's own test
    split, and each target by its name, with accuracy, ece, zero_shot (accuracy of the bare
    prompt "a <class>." on the same images), travels (the parts of the fitted model used
    there, see `cbbt.learning.judging`) and n_judged. If the service's logit scale is unknown, the record
    has logit_scale, as chosen on the shots. A run over the network has traffic: number of requests, and bytes
    sent and received.

    Raises `DataError` for data that cannot be read or an empty evaluation split,
    `StaleRecord` if the stored files of this run belong to other images or weights,
    `ServiceRefused` if the method needs more than the box has,
    `BudgetExceeded` if a budget does not allow the method's initialisation and one
    step, and `FloatingPointError` if a loss or the result is not finite.
    """
    words = {"split": config.split, "template": config.template, "class_names": config.class_names}
    whole = load_task(config.dataset, shots=config.shots, seed=config.seed, root=root, **words)
    if config.judge == "validation":
        shots = {identity(item) for item in whole.val}  # which a method may have read
        pool = load_task(config.dataset, root=root, **words).val
        whole = dataclasses.replace(whole, test=tuple(item for item in pool if identity(item) not in shots))
    task = half_of(whole, config.classes)
    targets = [find_target(name, whole, config.classes, root) for name in config.targets]
    if not len(task.test):
        raise DataError(f"{config.dataset} has no image to evaluate on: its {config.judge} split is empty")
    options = {"cache": cache, "device": device, "workers": workers, "progress": progress, "save_every": save_every}
    workbench = workbench or Workbench()
    if out is None:
        return _carry_out(config, task, targets, None, workbench, **options)
    folder = Path(out).expanduser() / config.run_id
    origin = origin_of(config, task, targets, workbench.is_elsewhere(config))
    with locked(folder / LOCK, wait=True):
        if (folder / RECORD).exists():
            record = read_record_file(folder / RECORD)
            require_same_origin(record.get("origin", {}), origin, folder)
        else:
            if workbench.is_elsewhere(config):
                origin["weights"] = workbench.box(config, METHODS[config.method].white_box, device, Ledger()).fingerprint()
            asker = _begin(origin, folder)
            record = _carry_out(config, task, targets, folder, workbench, asker=asker, **options) | {"origin": origin}
            _save(record, folder)
        (folder / LOCK).unlink(missing_ok=True)  # a waiting process then holds a deleted file
    return record


def _begin(origin: dict, folder: Path) -> str:
    """Store the run's origin; if it was begun before and has stored files, check that the origin is still the same.

    Returns the ledger's name, which identifies the run's requests: the same as before for a run begun earlier.
    """
    then = json.loads((folder / ORIGIN).read_text(encoding="utf-8")) if (folder / ORIGIN).exists() else {}
    if (folder / CHECKPOINT).exists() and then:
        require_same_origin(then, origin, folder)
    asker = then.get("asker") or uuid.uuid4().hex
    with whole_file(folder / ORIGIN) as partial:
        partial.write_text(json.dumps(origin | {"asker": asker}), encoding="utf-8")
    return asker


def _carry_out(
    config: RunConfig,
    task: Task,
    targets: list[Target],
    folder,
    workbench: Workbench,
    *,
    cache,
    device,
    workers,
    progress,
    save_every,
    asker: str | None = None,
) -> dict:
    """Fit on the shots of `task`, evaluate on its test split and the targets, and build the record."""
    begun = time.perf_counter()
    method = METHODS[config.method]
    ledger = Ledger(config.budget, journal=folder / JOURNAL if folder else None, name=asker)
    box = workbench.box(config, method.white_box, device, ledger)
    traffic = dict(box.connection.traffic) if box.connection else {}
    require_distinct_prompts(task, box)
    judge = box.with_ledger(Ledger(name=f"{ledger.name} judge"))

    noisy = SERVICES[config.service].noise  # drawn anew for each answer, so features are not cached
    reading = {"cache": None if noisy else cache, "workers": workers, "progress": progress}
    split = workbench.split(judge, task.test, reading)
    column = f"{config.judge}_accuracy"
    support = _support(box, task, config, reading)
    session = Session(
        judge=judge,
        observe=lambda classifier: {column: classifier.accuracy_on(split, judge)},
        checkpoint=folder / CHECKPOINT if folder else None,
        save_every=save_every,
        progress=progress,
    )
    if chosen := box.logit_scale is None:
        box.logit_scale = judge.logit_scale = fitting_logit_scale(start_text(box, support, config), *support.whole())
    loaded = time.perf_counter()
    try:
        with peak_memory(box.device) as peak:
            fitted = method.fit(box, support, config, session)
        ended = time.perf_counter()
        logits = fitted.last.logits_on(split, judge)
        scores = {column: accuracy_of(logits, split.labels)}
        if fitted.best_val is not None:
            scores[f"{column}_best_val"] = fitted.best_val.accuracy_on(split, judge)
        elsewhere = _judge_targets(config, task, targets, fitted.last, judge, workbench, reading)
    except FloatingPointError as error:
        raise FloatingPointError(f"{config.run_id}: {error}; choose smaller steps ({_step_sizes(config)})") from error
    if fitted.history:
        # The best epoch on the judging split itself, as the official code selects: for comparison only.
        scores[f"{column}_official_selection"] = max(row[column] for row in fitted.history)
    scores[f"{config.judge}_ece"] = expected_calibration_error(logits, split.labels)
    return (
        {
            "run_id": config.run_id,
            "task": config.dataset_name,
            "config": dataclasses.asdict(config),
            "scores": scores,
            "selection": "last step",
            "best_val_epoch": fitted.best_epoch,
            "n_classes": len(task.class_names),
            "n_judged": len(task.test),
            "learned": fitted.learned,
            "history": fitted.history,
            "queries": dict(ledger.counts),
            "evaluation_queries": dict(judge.ledger.counts),
            "repeated_queries": {grain: asked - ledger.counts[grain] for grain, asked in ledger.asked().items()},
            "seconds": {"load": loaded - begun, "fit": ended - loaded, "total": time.perf_counter() - begun},
            "peak_megabytes": peak["megabytes"],
            "versions": versions(),
            "commit": commit(),
            "device": device_name(box.device),
        }
        | ({"targets": elsewhere} if targets else {})
        | ({"logit_scale": box.logit_scale} if chosen else {})
        | _traffic_since(traffic, box)
    )


def _traffic_since(before: dict[str, int], box) -> dict[str, dict[str, int]]:
    """{"traffic": …}: requests and bytes since `before` for a remote box; else empty."""
    return {"traffic": {name: count - before[name] for name, count in box.connection.traffic.items()}} if before else {}


def _judge_targets(config, task: Task, targets: list[Target], classifier: Classifier, judge, workbench, reading) -> dict:
    """Each target's scores by its name, and those of the run's own test split; each has a ledger of its own."""
    own = Target("own", task.test, task.class_names, task.template, tuple(range(len(task.class_names))))
    table = {}
    for target in [own, *targets] if targets else []:
        box = judge.with_ledger(Ledger(name=f"{judge.ledger.name} {target.name}"))
        split = workbench.split(box, target.items, reading)
        bare = bare_text(box, target)
        table[dataset_name(target.name)] = judge_elsewhere(classifier, target, split, box, start_text(box, target, config)) | {
            "zero_shot": Classifier(bare, IdentityAdapter(), box.logit_scale).accuracy_on(split, box),
            "n_judged": len(target.items),
        }
    return table


def _step_sizes(config: RunConfig) -> str:
    """The settings that determine the step size, with their values."""
    values = {name: getattr(config, name) for name in ("prompt_lr", "adapter_lr", "cache_lr", "epsilon")} | config.options
    return ", ".join(f"{name}={value}" for name, value in values.items() if isinstance(value, float))


def run_all(configs, out: str | Path | None = None, *, progress: bool = False, **options) -> list[dict]:
    """Carry out runs one after another and return their records, in order.

    Like `run` for each, with its `options`, but models are loaded and the evaluation split
    is encoded once for all. `progress` shows a bar over the runs, and one within each.
    """
    workbench = Workbench()
    bar = tqdm(configs, desc="runs", disable=not progress, leave=False)
    return [run(config, out, progress=progress, workbench=workbench, **options) for config in bar]


def _save(record: dict, folder: Path) -> None:
    """Write the record atomically, and remove the run's temporary files."""
    with whole_file(folder / RECORD) as partial:
        partial.write_text(json.dumps(record, indent=1, allow_nan=False), encoding="utf-8")
    for leftover in (CHECKPOINT, JOURNAL, ORIGIN):
        (folder / leftover).unlink(missing_ok=True)


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
        pixels=Pixels(task.train, box.preprocess),
        val_pixels=Pixels(task.val, box.preprocess),
    )


def device_name(device: torch.device) -> str:
    """The GPU's name, or "cpu" with the number of threads."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
