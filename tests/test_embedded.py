"""The four embedded tasks: fixed disjoint splits, and a shipped model that can do something on them."""

import hashlib

import numpy as np
import pytest
import torch

from cbbt.data.embedded import EMBEDDED, NAMES, embedded_task
from cbbt.data.task import DataError, draw_shots, labels_of
from cbbt.mini_clip import captions
from cbbt.mini_clip.model import MiniTokenizer, load_mini_clip
from cbbt.mini_clip.pretrain import zero_shot_accuracy

SIZES = {"digits": (400, 200, 1197), "landcover": (640, 400, 2000), "textures": (1024, 640, 2000), "shapes": (896, 560, 2002)}
FLOORS = {"digits": 60, "landcover": 60, "textures": 65, "shapes": 60}  # zero-shot on the validation split, in percent


@pytest.fixture(params=EMBEDDED)
def task(request):
    return embedded_task(request.param)


def test_sizes_and_labels(task):
    assert tuple(map(len, (task.train, task.val, task.test))) == SIZES[task.name]
    for split in (task.train, task.val, task.test):
        assert {item.label for item in split} == set(range(len(task.class_names)))
        assert all(item.class_name == task.class_names[item.label] for item in split)
        assert all(item.pixels.shape == (32, 32, 3) and item.pixels.dtype == np.uint8 for item in split)


def test_splits_share_no_image(task):
    def digests(split):
        return [hashlib.sha256(item.pixels.tobytes()).hexdigest() for item in split]

    train, val, test = map(digests, (task.train, task.val, task.test))
    assert len(set(train + val + test)) == len(train + val + test)


def test_a_second_load_gives_the_same_images():
    first = embedded_task("digits")
    again = embedded_task.__wrapped__("digits")  # past the cache
    assert again is not first
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(first.test, again.test))


def test_shots_can_be_drawn(task):
    train, val = draw_shots(task.train, task.val, 16, seed=1)
    assert torch.bincount(labels_of(train)).tolist() == [16] * len(task.class_names)
    assert torch.bincount(labels_of(val)).tolist() == [4] * len(task.class_names)


def test_the_model_knows_every_class_name(task):
    ids = MiniTokenizer()([task.template.replace("{}", name) for name in task.class_names])
    assert len(ids.unique(dim=0)) == len(task.class_names)
    for name in task.class_names:  # sixteen context words and every name fit into 24 places
        MiniTokenizer()(["a " * 16 + f"{name}."])
    concepts = captions.DIGITS | captions.LANDS | captions.TEXTURES | captions.SHAPES
    assert all(name in concepts[kind] for kind, name in NAMES[task.name].items())


def test_zero_shot_on_validation_is_above_its_floor(task):
    accuracy = zero_shot_accuracy(load_mini_clip(), task.template, task.class_names, task.val)
    assert accuracy > FLOORS[task.name]


def test_an_unknown_task_is_refused_with_the_choices():
    with pytest.raises(DataError, match="digits, landcover, textures, shapes"):
        embedded_task("pets")
