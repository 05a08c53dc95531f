"""Features on disk: found when all is the same, encoded anew otherwise, and kept through kills."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

import cbbt
from cbbt.box.blackbox import BlackBox
from cbbt.box.ledger import BudgetExceeded, Ledger
from cbbt.data import feature_cache, features
from cbbt.data.features import encode_items, encode_views
from cbbt.data.task import DataError, Item
from tests.conftest import tiny_loaded
from tests.data_layouts import write_benchmark

DRAWING = {"views": 3, "augmentation": "cbbt", "mirror": True, "seed": 1}
COUNT = 5  # images; three views make 15 rows: shards of 4, 4, 4, 3 in batches of two


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(features, "BATCH", 2)
    monkeypatch.setattr(feature_cache, "SHARD", 4)


@pytest.fixture
def items(tmp_path):
    made = []
    for number in range(COUNT):
        path = tmp_path / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        made.append(Item(number % 2, "cat", path=path, key=path.name))
    return tuple(made)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def shards(cache):
    return sorted(cache.glob("*/*.safetensors"))


def encode(box, items, cache, **changes):
    return encode_views(box, items, cache=cache, **(DRAWING | changes))


def asked(box, items, cache, **changes) -> int:
    """Images that the box is asked for, with a ledger of its own."""
    own = box.with_ledger(Ledger())
    encode(own, items, cache, **changes)
    return own.ledger.asked()["images"]


def test_a_hit_is_the_same_bits_and_asks_nothing(box, items, cache):
    plain = encode(box, items, None)
    assert torch.equal(encode(box, items, cache), plain) and len(shards(cache)) == 4
    assert asked(box, items, cache) == 0
    assert torch.equal(encode(box, items, cache), plain) and plain.shape == (3, COUNT, box.embed_dim)


def test_the_ledger_counts_the_same_with_and_without_a_cache(box, items, cache, tmp_path):
    for place in (None, cache, cache):
        own = box.with_ledger(Ledger())
        encode(own, items, place)
        assert own.ledger.counts["images"] == 3 * COUNT
    journalled = box.with_ledger(Ledger(journal=tmp_path / "asked.jsonl"))
    encode(journalled, items, cache)
    assert journalled.ledger.counts["images"] == 15 and journalled.ledger.asked()["images"] == 0
    with pytest.raises(BudgetExceeded, match="the budget is 14"):
        encode(box.with_ledger(Ledger({"images": 14})), items, cache)


@pytest.mark.parametrize("change", [{"views": 2}, {"augmentation": "crop"}, {"mirror": False}, {"seed": 2}])
def test_another_drawing_is_a_miss(box, items, cache, change):
    encode(box, items, cache)
    assert asked(box, items, cache, **change) == (DRAWING | change)["views"] * COUNT
    assert asked(box, items, cache) == 0


def test_other_images_or_labels_are_a_miss(box, items, cache):
    encode(box, items, cache)
    relabelled = (dataclasses.replace(items[0], label=1), *items[1:])
    renamed = (dataclasses.replace(items[0], key="other.png"), *items[1:])
    for others in (relabelled, renamed, items[::-1], items[:4]):
        assert asked(box, others, cache) == 3 * len(others)


def test_replacing_a_picture_costs_the_shards_it_is_in(box, items, cache):
    encode(box, items, cache)
    Image.new("RGB", (40, 40)).save(items[3].path)  # rows 3, 8 and 13 of shards 0, 2 and 3
    own = box.with_ledger(Ledger())
    assert torch.equal(encode(own, items, cache), encode(box, items, None))
    assert own.ledger.asked()["images"] == 4 + 4 + 3


def test_another_picture_of_the_same_size_is_not_taken_for_the_old_one(box, items, cache):
    encode(box, items, cache)
    path = items[3].path
    old, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.unlink()
    Image.fromarray(np.full((20, 24, 3), 7, np.uint8)).save(path)
    path.write_bytes(path.read_bytes().ljust(len(old), b"\0"))
    os.utime(path, ns=times)  # as after a copy that keeps times
    assert path.stat().st_size == len(old)
    assert asked(box, items, cache) == 4 + 4 + 3


def test_other_weights_or_preprocessing_are_a_miss(box, items, cache):
    encode(box, items, cache)
    cpu = torch.device("cpu")
    assert asked(BlackBox(tiny_loaded(), cpu), items, cache) == 0
    trained = tiny_loaded()
    trained.model.visual.proj.data[0, 0] += 1e-3
    darker = tiny_loaded()
    darker.preprocess_config["mean"] = (0.1, 0.1, 0.1)
    renamed = dataclasses.replace(tiny_loaded(), name="other")
    for changed in (trained, darker, renamed):
        assert asked(BlackBox(changed, cpu), items, cache) == 3 * COUNT


def test_where_the_data_lie_does_not_matter(box, items, cache, tmp_path):
    encode(box, items, cache)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    moved = tuple(dataclasses.replace(item, path=tmp_path / "elsewhere" / item.key) for item in items)
    assert asked(box, moved, cache) == 0


@pytest.mark.parametrize("batches", [0, 1, 2, 3, 5, 7])
def test_a_killed_encoding_goes_on_to_the_same_bits(box, items, cache, monkeypatch, batches):
    undisturbed = encode(box, items, None)
    answer, left = BlackBox.encode_images, [batches]

    def answers_until_killed(self, pixels, normalize=True):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return answer(self, pixels, normalize)

    monkeypatch.setattr(BlackBox, "encode_images", answers_until_killed)
    with pytest.raises(KeyboardInterrupt):
        encode(box, items, cache)
    monkeypatch.setattr(BlackBox, "encode_images", answer)
    finished = batches // 2
    assert len(shards(cache)) == finished
    own = box.with_ledger(Ledger())
    assert torch.equal(encode(own, items, cache), undisturbed)
    assert own.ledger.counts["images"] == 15 and own.ledger.asked()["images"] == 15 - 4 * finished


def test_a_half_written_or_foreign_shard_is_encoded_anew(box, items, cache):
    undisturbed = encode(box, items, cache)
    encode(box, items, cache, seed=2)
    first, second, *_ = mine = [p for p in shards(cache) if p.parent == first_folder(cache, undisturbed)]
    foreign = next(p for p in shards(cache) if p not in mine and p.name == second.name)
    first.write_bytes(first.read_bytes()[:100])
    second.write_bytes(foreign.read_bytes())
    spoilt = bytearray(mine[3].read_bytes())
    spoilt[-3] ^= 1  # one bit of a feature: the file is whole, and would be read
    mine[3].write_bytes(spoilt)
    mine[2].with_suffix(".1.partial").write_bytes(b"left by a kill")
    own = box.with_ledger(Ledger())
    assert torch.equal(encode(own, items, cache), undisturbed)
    assert own.ledger.asked()["images"] == 4 + 4 + 3
    assert asked(box, items, cache) == 0


def first_folder(cache, undisturbed):
    """The folder whose first shard holds these features."""
    from safetensors.torch import load_file

    first = undisturbed.flatten(0, 1)[:4]
    return next(p.parent for p in shards(cache) if torch.equal(load_file(p)["features"], first))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_and_finished_shards_stay(box, items, cache, workers):
    whole = items[4].path.read_bytes()
    items[4].path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"^cannot read image .*4\.png.*\(4 of 5 views of images were read before it\)$"):
        encode_items(box, items, cache=cache, workers=workers)
    assert len(shards(cache)) == 1
    items[4].path.write_bytes(whole)
    own = box.with_ledger(Ledger())
    assert torch.equal(encode_items(own, items, cache=cache), encode_items(box, items))
    assert own.ledger.asked()["images"] == 1


def test_a_missing_image_is_named(box, items, cache):
    items[1].path.unlink()
    with pytest.raises(DataError, match=r"cannot read image .*1\.png"):
        encode(box, items, cache)


def test_a_cache_among_the_images_is_refused(box, items, tmp_path):
    with pytest.raises(DataError, match="is inside the images' folder"):
        encode(box, items, tmp_path / "images" / "cache")
    assert len(list((tmp_path / "images").iterdir())) == COUNT


def test_a_cache_beside_the_class_folder_of_all_items_is_refused(box, tmp_path):
    write_benchmark(tmp_path, "eurosat")
    river = [item for item in cbbt.load_task("eurosat", root=tmp_path).test if item.label == 1]
    with pytest.raises(DataError, match="is inside the images' folder .*2750;"):
        encode(box, river, tmp_path / "eurosat" / "2750" / "cache")
    encode(box, river, tmp_path / "eurosat" / "cache")


def test_runs_with_and_without_a_cache_are_equal(cache, tmp_path):
    config = cbbt.RunConfig("digits", method="adapter", shots=2, epochs=2, views=2)
    plain, *cached = (cbbt.run(config, cache=place) for place in (None, cache, cache))
    for record in cached:
        for part in ("scores", "history", "queries", "evaluation_queries"):
            assert record[part] == plain[part]
    counted = plain["queries"]["images"]
    assert [record["repeated_queries"]["images"] for record in (plain, *cached)] == [0, 0, -counted]


def test_no_images_need_no_cache(box, cache):
    assert encode_items(box, (), cache=cache).shape == (0, box.embed_dim) and not cache.exists()


def test_a_cache_that_cannot_be_written_is_named(box, items, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write features to .*file/tiny-.*; choose another cache folder"):
        encode(box, items, tmp_path / "file")


def test_a_cache_in_the_home(box, items, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    encode(box, items, "~/kept")
    assert len(shards(tmp_path / "kept")) == 4 and not (tmp_path / "~").exists()


def test_workers_give_the_same_bits_and_need_no_shared_memory(box, items, monkeypatch):
    def refused(*_):
        raise OSError("no room in /dev/shm")

    plain = encode(box, items, None)
    monkeypatch.setattr("torch.multiprocessing.reductions.reduce_storage", refused)
    monkeypatch.setattr("torch.UntypedStorage._new_using_fd_cpu", refused)
    monkeypatch.setattr("torch.UntypedStorage._share_fd_cpu_", refused)
    assert torch.equal(encode(box, items, None, workers=2), plain)


def test_a_worker_that_dies_is_said(box, items, monkeypatch):
    monkeypatch.setattr(Item, "image", lambda self: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(RuntimeError, match="one of the 1 workers .* died, perhaps out of memory: set workers lower"):
        encode(box, items, None, workers=1)


@pytest.mark.parametrize("workers", [-1, 1.5, True, "2"])
def test_workers_are_a_count(box, items, workers):
    with pytest.raises(ValueError, match="workers must be a whole number from 0, got"):
        encode(box, items, None, workers=workers)
