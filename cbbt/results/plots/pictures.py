"""Pictures of a task: what the shots look like."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch

from cbbt.data.augment import Augmentation
from cbbt.data.task import Task
from cbbt.figure_style import PAGE, STYLE
from cbbt.prompts import readable


def shots_figure(task: Task, columns: int = 10):
    """One training shot of each of the first `columns` classes, with its class name."""
    firsts = {}
    for item in task.train:
        firsts.setdefault(item.label, item)
    return _row([firsts[label] for label in sorted(firsts)[:columns]], task.name)


def views_figure(task: Task, preprocess_config: dict, kind: str, generator: torch.Generator, columns: int = 10):
    """One training shot as the test transform and as training-time augmentation show it."""
    item = task.train[0]
    plain = Augmentation(preprocess_config, "none", False)
    views = Augmentation(preprocess_config, kind, task.mirror)
    image = item.image()
    pixels = [plain(image, generator)] + [views(image, generator) for _ in range(columns - 1)]
    mean, std = (torch.tensor(preprocess_config[key]).view(3, 1, 1) for key in ("mean", "std"))
    pictures = [(p * std + mean).clamp(0, 1).permute(1, 2, 0).numpy() for p in pixels]
    return _row(pictures, f"{task.name}: {readable(item.class_name)}, as is and augmented", ["as is"] + [""] * (columns - 1))


def _row(pictures, title: str, captions=None):
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(pictures), figsize=(PAGE, PAGE / len(pictures) + 0.45), squeeze=False)
        for index, (picture, axis) in enumerate(zip(pictures, axes[0])):
            item = picture if hasattr(picture, "class_name") else None
            axis.imshow(item.image() if item else picture, interpolation="nearest")
            caption = readable(item.class_name).replace(" ", "\n") if item else captions[index]
            axis.set_title(caption, fontsize=5.5)
            axis.axis("off")
        figure.suptitle(title, x=0.01, ha="left", fontsize=8)
    return figure
