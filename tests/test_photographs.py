"""EuroSAT and Caltech101 whole, where CBBT_PHOTOGRAPHS names the folder that holds both; tests on made pictures go without."""

import os
from collections import Counter

import pytest
import torch
from PIL import Image

import cbbt
from cbbt.data.cards import CARDS
from cbbt.data.features import encode_items

from .data_layouts import COOP
from .test_data_shots import published_shots

ROOT = os.environ.get("CBBT_PHOTOGRAPHS", "")
KINDS = {  # modes of the files, and sizes of the smallest and the largest, by width and by height
    "eurosat": ({"RGB": 27000}, (64, 64), (64, 64)),
    "caltech101": ({"RGB": 7861, "L": 381}, (80, 708), (92, 494)),
}
pytestmark = pytest.mark.skipif(not ROOT, reason="CBBT_PHOTOGRAPHS names no folder")


@pytest.mark.parametrize("name", KINDS)
def test_every_image_is_there_and_of_the_kind_that_is_known(name):
    (found,) = cbbt.check_data(ROOT, name, progress=False).itertuples()
    assert (found.state, found.present, found.note) == ("ready", found.expected, "")
    task, modes, sizes = cbbt.load_task(name, root=ROOT), Counter(), []
    for item in task.train + task.val + task.test:
        with Image.open(item.path) as image:
            modes[image.mode] += 1
            sizes.append(image.size)
    widths, heights = zip(*sizes)
    assert (dict(modes), (min(widths), max(widths)), (min(heights), max(heights))) == KINDS[name]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("shots", [1, 16])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_shots_are_coops(name, shots, seed):
    if not (COOP / name).is_dir():
        pytest.skip("the published indices are not at hand")
    task, card = cbbt.load_task(name, shots=shots, seed=seed, root=ROOT), CARDS[name]
    oracle = published_shots(name, shots, seed, f"{card.folder}/{card.images}/")
    assert all(item.path.is_file() for item in task.train + task.val)
    for split in ("train", "val"):
        assert [(item.key, item.label, item.class_name) for item in getattr(task, split)] == oracle[split]


@pytest.mark.parametrize("name", KINDS)
def test_features_are_the_same_kept_or_not(tmp_path, name, one_thread):
    """Of one image in thirty, grey ones among them."""
    task = cbbt.load_task(name, root=ROOT)
    items, box = task.test[::30] + task.test[-3:], cbbt.load_black_box("mini")
    first, kept, fresh = (encode_items(box, items, cache=cache) for cache in (tmp_path, tmp_path, None))
    assert torch.equal(first, kept) and torch.equal(first, fresh) and first.isfinite().all()
    assert box.ledger.counts["images"] == 3 * len(items) and box.ledger.asked()["images"] == 2 * len(items)
