"""Folders of one's own: both layouts, the fixed split, and what is refused."""

import shutil

import pytest

from cbbt.data.folders import fixed_split
from cbbt.data.load import load_task
from cbbt.data.task import DataError, split_digest

from .data_layouts import PICTURE, write


def class_folders(folder, classes=("owl", "sea_gull"), count=10):
    for name in classes:
        for number in range(count):
            write(folder / name / f"{number:02d}.jpg")
    return folder


def split_folders(folder, splits=("train", "val", "test")):
    for split in splits:
        class_folders(folder / split, count=3)
    return folder


def test_class_folders_are_split_once_and_for_all(tmp_path):
    folder = class_folders(tmp_path / "birds")
    task = load_task(folder)
    assert task.name == "birds" and task.class_names == ("owl", "sea_gull") and task.template == "a photo of a {}."
    for label in (0, 1):
        assert [sum(i.label == label for i in s) for s in (task.train, task.val, task.test)] == [5, 2, 3]
    keys = [item.key for item in task.train + task.val + task.test]
    assert sorted(keys) == sorted(f"{name}/{n:02d}.jpg" for name in task.class_names for n in range(10))
    assert load_task(str(folder), seed=5) == task
    few = load_task(folder, shots=3, seed=2, template="a {} on a wire")
    assert len(few.train) == 6 and set(few.train) < set(task.train) and few.test == task.test
    assert few.train != load_task(folder, shots=3, seed=3).train
    assert load_task(folder, 1, class_names={"sea_gull": "gull"}).class_names == ("owl", "gull")
    assert all(item.image().size == (16, 12) for item in few.train)


def test_the_split_depends_on_nothing_but_the_names(tmp_path):
    one = class_folders(tmp_path / "one")
    other = tmp_path / "elsewhere" / "two"
    for number in reversed(range(10)):  # another order on disk, another place, one class more
        for name in ("zebra", "sea_gull", "owl"):
            write(other / name / f"{number:02d}.jpg")
    task, again = load_task(one), load_task(other)
    for split in ("train", "val", "test"):
        known = [item.key for item in getattr(again, split) if item.class_name != "zebra"]
        assert known == [item.key for item in getattr(task, split)]
    shutil.move(one, tmp_path / "moved")
    assert split_digest(load_task(tmp_path / "moved")) == split_digest(task)


def test_the_rule_itself_does_not_drift():
    names = [f"{n}.jpg" for n in range(10)]
    assert fixed_split(names[::-1], "owl") == fixed_split(names, "owl") != fixed_split(names, "elk")
    assert fixed_split(names, "owl") == {
        "train": ["0.jpg", "1.jpg", "3.jpg", "4.jpg", "6.jpg"],
        "val": ["2.jpg", "8.jpg"],
        "test": ["5.jpg", "7.jpg", "9.jpg"],
    }
    sizes = {n: [len(part) for part in fixed_split(names[:n], "owl").values()] for n in (2, 3, 4, 5, 10)}
    assert sizes == {2: [1, 0, 1], 3: [2, 0, 1], 4: [2, 0, 2], 5: [3, 1, 1], 10: [5, 2, 3]}


def test_given_splits_are_used_as_they_are(tmp_path):
    task = load_task(split_folders(tmp_path / "birds"))
    for split in ("train", "val", "test"):
        expected = [f"{split}/{name}/{n:02d}.jpg" for name in ("owl", "sea_gull") for n in range(3)]
        assert [item.key for item in getattr(task, split)] == expected
    assert load_task(split_folders(tmp_path / "two", ("train", "test"))).val == ()


def test_common_endings_count_and_hidden_files_do_not(tmp_path):
    folder = class_folders(tmp_path / "birds", count=0)
    for ending in ("JPG", "jpeg", "png", "bmp", "tif", "tiff", "webp", "gif", "ppm"):
        write(folder / "owl" / f"a.{ending}")
        write(folder / "elk" / f"a.{ending}")
    for other in ("owl/.b.jpg", "owl/Thumbs.db", "owl/notes.txt", ".cache/x/a.jpg", ".DS_Store", "README.md"):
        write(folder / other)
    task = load_task(folder)
    assert task.class_names == ("elk", "owl") and len(task.train + task.val + task.test) == 18


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: (f / "empty").mkdir(), "the class folder .*empty holds 0 images, expected at least 2; .* .png"),
        (lambda f: write(f / "one" / "a.jpg"), "the class folder .*one holds 1 images, expected at least 2"),
        (lambda f: write(f / "a.jpg"), "holds 1 images outside class folders, first a.jpg"),
        (lambda f: write(f / "owl" / "night" / "a.jpg"), "class folder .*owl holds the folder night: expected images"),
        (lambda f: write(f / "train" / "owl" / "a.jpg"), "mixes two layouts: .* lie beside owl, sea_gull"),
    ],
)
def test_spoilt_class_folders(tmp_path, spoil, message):
    folder = class_folders(tmp_path / "birds")
    spoil(folder)
    with pytest.raises(DataError, match=message):
        load_task(folder)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: shutil.rmtree(f / "test"), "expected train and test .val is optional., got train, val"),
        (lambda f: write(f / "val" / "elk" / "a.jpg"), "train and val differ in the classes elk"),
        (lambda f: shutil.rmtree(f / "test" / "owl"), "train and test differ in the classes owl"),
        (lambda f: write(f / "train" / "a.jpg"), "train holds 1 images outside class folders"),
        (lambda f: [p.unlink() for p in (f / "val" / "owl").iterdir()], "val/owl holds 0 images, expected at least 1"),
        (lambda f: (f / "validation").mkdir(), "mixes two layouts: train/val/test lie beside validation"),
        (lambda f: [shutil.rmtree(p) for p in f.glob("*/*")], "train holds no class folders"),
    ],
)
def test_spoilt_given_splits(tmp_path, spoil, message):
    folder = split_folders(tmp_path / "birds")
    spoil(folder)
    with pytest.raises(DataError, match=message):
        load_task(folder)


def test_folders_without_class_folders_and_shots_beyond_a_class(tmp_path):
    write(tmp_path / "flat" / "a.jpg")
    with pytest.raises(DataError, match="flat holds no class folders: expected one folder of images per class"):
        load_task(tmp_path / "flat")
    for layout in (class_folders(tmp_path / "one", ["owl"]), tmp_path / "split"):
        if layout.name == "split":
            for split in ("train", "test"):
                class_folders(layout / split, ["owl"])
        with pytest.raises(DataError, match="holds one class, owl: expected two or more to tell apart"):
            load_task(layout)
    with pytest.raises(DataError, match="no task and no folder is called '.*nowhere'"):
        load_task(tmp_path / "nowhere")
    with pytest.raises(DataError, match="6 shots asked for, but class 'owl' of birds has 5 training images"):
        load_task(class_folders(tmp_path / "birds"), shots=6)
    (tmp_path / "birds" / "owl" / "00.jpg").write_bytes(PICTURE[:150])
    task = load_task(tmp_path / "birds")
    broken = next(item for item in task.train + task.val + task.test if item.key == "owl/00.jpg")
    with pytest.raises(DataError, match="cannot read image .*owl/00.jpg"):
        broken.image()
