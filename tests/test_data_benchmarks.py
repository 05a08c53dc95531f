"""Each of the eleven loaders on its own folder layout, whole and broken."""

import csv
import dataclasses
import io
import shutil

import pytest

from cbbt.data.cards import CARDS
from cbbt.data.check import check_data
from cbbt.data.embedded import EMBEDDED as EMBEDDED_TASKS
from cbbt.data.load import EMBEDDED, load_task
from cbbt.data.task import DataError, files_digest, split_digest

from .data_layouts import CLASSES, PICTURE, coop_root, jpeg, split_entries, write, write_benchmark, write_split

WITH_SPLIT_FILE = [name for name in CARDS if name not in ("imagenet", "fgvc_aircraft")]

# Sizes and templates of the published benchmarks, written down a second time.
TABLE = """imagenet,1000,1281167,0,50000,12,a photo of a {}.
caltech101,100,4128,1649,2465,150,a photo of a {}.
oxford_pets,37,2944,736,3669,150,"a photo of a {}, a type of pet."
stanford_cars,196,6509,1635,8041,80,a photo of a {}.
oxford_flowers,102,4093,1633,2463,150,"a photo of a {}, a type of flower."
food101,101,50500,20200,30300,150,"a photo of {}, a type of food."
fgvc_aircraft,100,3334,3333,3333,150,"a photo of a {}, a type of aircraft."
sun397,397,15880,3970,19850,40,a photo of a {}.
dtd,47,2820,1128,1692,150,{} texture.
eurosat,10,13500,5400,8100,150,a centered satellite photo of {}.
ucf101,101,7639,1898,3783,150,a photo of a person doing {}.
"""


def test_the_cards_are_the_published_table():
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(TABLE))}
    assert list(rows) == list(CARDS)
    for name, card in CARDS.items():
        known = [card.classes, card.train, card.val, card.test, card.epochs, card.template]
        assert list(map(str, known)) == rows[name]


@pytest.mark.parametrize("name", CARDS)
def test_a_benchmark_in_its_own_layout(tmp_path, name):
    write_benchmark(tmp_path, name)
    full = load_task(name, root=tmp_path)
    val = 0 if name == "imagenet" else 3
    assert full.name == name and full.class_names == CLASSES and full.template == CARDS[name].template
    assert [len(full.train), len(full.val), len(full.test)] == [18, 3 * val, 6]
    for item in full.train + full.val + full.test:
        assert item.class_name == CLASSES[item.label]
        assert item.path == CARDS[name].image_root(tmp_path) / item.key
        assert item.image().size == (16, 12)
    keys = [{item.key for item in split} for split in (full.train, full.val, full.test)]
    assert sum(map(len, keys)) == len(set.union(*keys)) == 24 + 3 * val

    few = load_task(name, shots=2, seed=3, root=tmp_path)
    assert [item.label for item in few.train] == [0, 0, 1, 1, 2, 2]
    assert len(few.val) == 3 * min(val, 2) and few.test == full.test
    assert set(few.train) <= set(full.train) and set(few.val) <= set(full.val)
    zero = load_task(name, shots=0, root=tmp_path)
    assert (zero.train, zero.val, zero.test) == ((), (), full.test)


@pytest.mark.parametrize("name", CARDS)
def test_a_missing_list_is_named_and_nothing_is_drawn_in_its_place(tmp_path, name):
    folder = write_benchmark(tmp_path, name)
    for file in CARDS[name].lists:
        moved = (folder / file).rename(tmp_path / "away")
        with pytest.raises(DataError, match=f"{file} is missing.*DATASETS.md.*cross_modal_adaptation.*torchvision"):
            load_task(name, root=tmp_path)
        assert not (folder / file).exists()
        moved.rename(folder / file)


@pytest.mark.parametrize("name", CARDS)
def test_missing_and_truncated_images_are_named(tmp_path, name):
    write_benchmark(tmp_path, name)
    task = load_task(name, shots=4, root=tmp_path)
    first, second = task.test[:2]
    first.path.unlink()
    second.path.write_bytes(second.path.read_bytes()[:200])
    task = load_task(name, shots=4, root=tmp_path)  # images of the test split are checked when opened
    assert second in task.test and (first in task.test) == (name != "imagenet")  # whose images are walked
    for item in (first, second):
        with pytest.raises(DataError, match=f"cannot read image .*{item.path.name}"):
            item.image()
    if name == "imagenet":  # a training image that is gone is simply not found by the walk
        return
    task.train[0].path.unlink()
    with pytest.raises(DataError, match=f"1 of [0-9]+ drawn images are missing, first .*{task.train[0].path.name}"):
        load_task(name, shots=4, root=tmp_path)


@pytest.mark.parametrize("name", CARDS)
def test_more_shots_than_a_class_has(tmp_path, name):
    write_benchmark(tmp_path, name)
    assert len(load_task(name, shots=6, root=tmp_path).train) == 18
    with pytest.raises(DataError, match="shots=7, .* 'bird_of_paradise' .* has 6 training images; choose shots up to 6"):
        load_task(name, shots=7, root=tmp_path)


@pytest.mark.parametrize("name", CARDS)
def test_absent_benchmarks_say_what_is_expected_where(tmp_path, name):
    with pytest.raises(DataError, match=f"{name} needs .* root .*{CARDS[name].folder}/ with {CARDS[name].lists[0]}"):
        load_task(name)
    with pytest.raises(DataError, match=f"{name} is not in .*expected the folder {CARDS[name].folder}/ with"):
        load_task(name, root=tmp_path)


def _edited(change):
    entries = split_entries("dtd")
    change(entries)
    return entries


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda e: e.pop("val"), "expected an object with the keys train, val and test, got .'test', 'train'."),
        (lambda e: e.update(val={}), "val should be a list, got dict"),
        (lambda e: e["test"].__setitem__(1, ["a.jpg", "1", "x"]), r"test\[1\]: expected .relative path, label, class"),
        (lambda e: e["test"].__setitem__(1, ["a.jpg", True, "x"]), r"test\[1\]: expected .relative path, label, class"),
        (lambda e: e["test"].__setitem__(1, ["a.jpg", 1]), r"test\[1\]: expected .relative path, label, class"),
        (lambda e: e["val"][2].__setitem__(0, "../../passwd"), r"val\[2\]: '../../passwd' leaves"),
        (lambda e: e["val"][2].__setitem__(0, "a\\b.jpg"), r"val\[2\]: .* leaves .* with / and no \.\."),
        (lambda e: e["val"][2].__setitem__(0, "/etc/passwd"), r"val\[2\]: '/etc/passwd' leaves"),
        (lambda e: e["val"][2].__setitem__(1, -1), r"val\[2\]: expected a label from 0"),
        (lambda e: e["val"][2].__setitem__(2, " "), r"val\[2\]: expected a label from 0 and a class name that is not"),
        (lambda e: e["val"][2].__setitem__(2, "owl"), r"val\[2\]: label 0 is .owl. here and .bird_of_p"),
        (lambda e: e["test"].append(["z.jpg", 7, "owl"]), r"labels should run from 0 to 3 .*got \[0, 1, 2, 7\]"),
        (lambda e: e["test"].append(list(e["train"][0])), r"test\[6\]: class_0/train_0.jpg is in train as well"),
        (lambda e: e["test"].append(["./" + e["train"][0][0], 0, CLASSES[0]]), r"test\[6\]: .* is in train as well"),
        (lambda e: e["train"].append(list(e["train"][0])), r"train\[18\]: class_0/train_0.jpg is twice"),
        (lambda e: e["train"].append(["z.jpg", 3, CLASSES[0]]), "the labels 0 and 3 have the same name, 'bird_of_paradise'"),
        (lambda e: e["val"][2].__setitem__(0, "a\0.jpg"), r"val\[2\]: the path or name has characters that no file"),
        (lambda e: e["val"][2].__setitem__(0, "\ud800.jpg"), r"val\[2\]: the path or name has characters that no file"),
        (lambda e: e.update(train=[], val=[], test=[]), "labels should run from 0"),
    ],
)
def test_a_malformed_split_file_is_refused_with_file_and_entry(tmp_path, change, message):
    write_benchmark(tmp_path, "dtd")
    write_split(tmp_path, "dtd", _edited(change))
    with pytest.raises(DataError, match=message) as caught:
        load_task("dtd", root=tmp_path)
    assert "split_zhou_DescribableTextures.json" in str(caught.value)


@pytest.mark.parametrize("name", WITH_SPLIT_FILE)
def test_a_split_file_that_is_not_json(tmp_path, name):
    write_benchmark(tmp_path, name)
    for text in ('{"train": [', "[" * 100_000):
        write_split(tmp_path, name, text)
        with pytest.raises(DataError, match=f"{CARDS[name].lists[0]} is not JSON.*DATASETS.md"):
            load_task(name, root=tmp_path)
    write_split(tmp_path, name, "[]")
    with pytest.raises(DataError, match="expected an object with the keys train, val and test, got list"):
        load_task(name, root=tmp_path)


def test_imagenet_is_sorted_and_its_test_images_never_become_validation(tmp_path):
    folder = write_benchmark(tmp_path, "imagenet")
    write(folder / "images" / "train" / "n01" / ".hidden.JPEG")
    task = load_task("imagenet", root=tmp_path)
    assert task.val == () and all(item.key.startswith("val/") for item in task.test)
    assert [item.key for item in task.train] == sorted(item.key for item in task.train)
    assert load_task("imagenet", shots=2, root=tmp_path).val == ()


@pytest.mark.parametrize("name", CARDS)
def test_lists_with_a_byte_order_mark_or_in_another_encoding(tmp_path, name):
    folder = write_benchmark(tmp_path, name)
    whole = load_task(name, root=tmp_path)
    for file in CARDS[name].lists:
        content = (folder / file).read_bytes()
        write(folder / file, b"\xef\xbb\xbf" + content)
        assert load_task(name, root=tmp_path) == whole
        write(folder / file, b"caf\xe9 " + content)
        with pytest.raises(DataError, match=f"{file} is not (JSON|text in UTF-8): 'utf-8' codec"):
            load_task(name, root=tmp_path)
        write(folder / file, content)


def test_imagenet_with_a_class_folder_without_images(tmp_path):
    images = write_benchmark(tmp_path, "imagenet") / "images"
    for file in (images / "val" / "n01").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="images/val: 1 class folders hold no image, first n01"):
        load_task("imagenet", root=tmp_path)


def test_imagenet_with_unsorted_val_or_unnamed_classes(tmp_path):
    folder = write_benchmark(tmp_path, "imagenet")
    write(folder / "classnames.txt", "n00 a\nn02 b\n")
    with pytest.raises(DataError, match="classnames.txt does not name 1 class folders, first n01"):
        load_task("imagenet", root=tmp_path)
    (folder / "images" / "val").rename(folder / "sorted")
    (folder / "images" / "val").mkdir()
    with pytest.raises(DataError, match="the same class folders .* got 3 and 0; images of val must first be sorted"):
        load_task("imagenet", root=tmp_path)


def test_malformed_lists_of_fgvc(tmp_path):
    folder = write_benchmark(tmp_path, "fgvc_aircraft")
    write(folder / "images_variant_val.txt", "0000001 Airbus A999\n")
    with pytest.raises(DataError, match="images_variant_val.txt, line 1: 'Airbus A999' is not in variants.txt"):
        load_task("fgvc_aircraft", root=tmp_path)
    write(folder / "images_variant_val.txt", f"0000001 {CLASSES[0]}\n")
    with pytest.raises(DataError, match="images_variant_val.txt, line 1: 0000001.jpg is in train as well"):
        load_task("fgvc_aircraft", root=tmp_path)
    write(folder / "images_variant_val.txt", f"0000099 {CLASSES[0]}\n" * 2)
    with pytest.raises(DataError, match="images_variant_val.txt, line 2: 0000099.jpg is twice"):
        load_task("fgvc_aircraft", root=tmp_path)
    write(folder / "images_variant_val.txt", f"../x {CLASSES[0]}\n")
    with pytest.raises(DataError, match="line 1: expected the name of an image, got '../x'"):
        load_task("fgvc_aircraft", root=tmp_path)
    write(folder / "variants.txt", "\n".join((*CLASSES, CLASSES[0])))
    with pytest.raises(DataError, match="variants.txt: the labels 0 and 3 have the same name, 'bird_of_paradise'"):
        load_task("fgvc_aircraft", root=tmp_path)


@pytest.mark.parametrize("name, folder", [("caltech101", "caltech101"), ("dtd", "dtd"), ("eurosat", "eurosat")])
def test_published_splits_have_the_sizes_of_the_card(tmp_path, name, folder):
    task, card = load_task(name, root=coop_root(tmp_path, name, folder)), CARDS[name]
    sizes = len(task.class_names), len(task.train), len(task.val), len(task.test)
    assert sizes == (card.classes, card.train, card.val, card.test)


def test_names_and_counts_are_checked(tmp_path):
    assert EMBEDDED == EMBEDDED_TASKS
    with pytest.raises(DataError, match="folder 'OxfordPet' .*is not a folder.. Did you mean oxford_pets.* Choose from .*ucf101"):
        load_task("OxfordPet")
    with pytest.raises(DataError, match="there is no task or folder ''"):
        load_task("")  # not the working directory
    with pytest.raises(DataError, match="should be a string or a path, got 3"):
        load_task(3)
    for shots in (-1, 2.0, "4", True):
        with pytest.raises(DataError, match="shots should be an integer from 0, or None, got"):
            load_task("digits", shots=shots)
    for seed in (-1, None, "1", 1.5):
        with pytest.raises(DataError, match="seed should be an integer from 0, got"):
            load_task("digits", shots=1, seed=seed)
    with pytest.raises(DataError, match="split 'official' is unknown: choose from coop, torchvision"):
        load_task("dtd", root=tmp_path, split="official")
    with pytest.raises(DataError, match=r"split \['coop'\] is unknown: choose from coop, torchvision"):
        load_task("dtd", root=tmp_path, split=["coop"])
    with pytest.raises(DataError, match="split='torchvision' is only for benchmarks, got the task digits"):
        load_task("digits", split="torchvision")
    with pytest.raises(DataError, match="shots=41, but class 'zero' of digits has 40 training images"):
        load_task("digits", shots=41)


def test_template_and_class_names_can_be_replaced(tmp_path):
    write_benchmark(tmp_path, "eurosat")
    task = load_task("eurosat", 1, root=tmp_path, template="{} from space", class_names=["a", "b", "c"])
    assert task.template == "{} from space" and task.class_names == ("a", "b", "c")
    assert [item.class_name for item in task.train] == ["a", "b", "c"]
    renamed = load_task("eurosat", 1, root=tmp_path, class_names={"Sea or Lake": "water"})
    assert renamed.class_names == (CLASSES[0], "water", CLASSES[2])
    assert [item.key for item in renamed.train] == [item.key for item in task.train]
    for names, message in [
        (["a", "b"], "class_names should be 3 names in label order"),
        ("abc", "class_names: there is no file /.*/abc"),
        (["a", "b", ""], "non-empty strings, got ''"),
        (["a", "b", "a"], "the classes 'a' and 'a' have the same prompt"),
        ({"lake": "water"}, "renames the unknown class 'lake'; choose from bird_of_paradise"),
    ]:
        with pytest.raises(DataError, match=message):
            load_task("eurosat", root=tmp_path, class_names=names)
    with pytest.raises(DataError, match="template should hold one {} for the class name, got 'a photo'"):
        load_task("eurosat", root=tmp_path, template="a photo")
    with pytest.raises(DataError, match="template should hold one {} for the class name, got 3"):
        load_task("eurosat", root=tmp_path, template=3)


def test_the_digest_names_images_and_labels_but_not_their_place(tmp_path):
    for place in ("one", "two"):
        write_benchmark(tmp_path / place, "dtd")
    one, two = (load_task("dtd", 4, root=tmp_path / place) for place in ("one", "two"))
    assert split_digest(one) == split_digest(two) and len(split_digest(one)) == 16
    assert split_digest(one) != split_digest(load_task("dtd", 4, seed=2, root=tmp_path / "one"))
    assert split_digest(one.train) != split_digest(one.train[::-1])
    other = dataclasses.replace(one.train[0], label=2)
    assert split_digest((other,)) != split_digest(one.train[:1])
    drawn = load_task("digits", 1)
    assert split_digest(drawn) == split_digest(load_task("digits", 1))
    pixels = drawn.train[0].pixels.copy()
    pixels[0, 0, 0] += 1
    assert split_digest((dataclasses.replace(drawn.train[0], pixels=pixels),)) != split_digest(drawn.train[:1])


def test_the_digest_of_the_files_names_what_they_are(tmp_path):
    write_benchmark(tmp_path / "one", "dtd")
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copy)  # times are not kept
    one, two = (load_task("dtd", root=tmp_path / place) for place in ("one", "two"))
    whole = files_digest(one, content=True)
    assert len(whole) == 16 and files_digest(one) == files_digest(two) != whole == files_digest(two, content=True)
    relabelled = dataclasses.replace(two, test=(dataclasses.replace(two.test[0], label=2), *two.test[1:]))
    fewer = dataclasses.replace(two, test=two.test[1:])
    write(two.test[0].path, jpeg(1))
    digests = {files_digest(task, content) for task in (one, two, relabelled, fewer) for content in (False, True)}
    assert len(digests) == 8 and split_digest(one) == split_digest(two)
    inside = PICTURE * 20  # longer than the two ends
    for number in (0, 1):
        write(two.test[0].path, inside[:5000] + bytes([number]) + inside[5001:])
        digests |= {files_digest(two), files_digest(two, content=True)}
    assert len(digests) == 11  # only the content tells these two apart
    drawn = load_task("digits", 1)
    assert files_digest(drawn) == files_digest(load_task("digits", 1)) != files_digest(load_task("digits", 2))
    two.test[0].path.unlink()
    with pytest.raises(DataError, match="cannot read image .*test_0.jpg"):
        files_digest(two)


@pytest.mark.parametrize(
    "name, folder, other",
    [
        ("eurosat", "eurosat/2750", "eurosat/EuroSAT_RGB"),
        ("caltech101", "caltech-101", "Caltech101"),
        ("oxford_pets", "oxford_pets", "oxford-iiit-pet"),
        ("oxford_flowers", "oxford_flowers/jpg", "oxford_flowers/images"),
        ("fgvc_aircraft", "fgvc_aircraft", "fgvc-aircraft-2013b"),
        ("food101", "food-101", "food101"),
    ],
)
def test_a_folder_of_another_name_is_said(tmp_path, name, folder, other):
    write_benchmark(tmp_path, name)
    (tmp_path / folder).rename(tmp_path / other)
    (tmp_path / "zebras").mkdir()
    word = other.split("/")[-1]
    with pytest.raises(DataError, match=f"{name}.*found: {word}[,;].* rename it if it is one of these"):
        load_task(name, root=tmp_path)
    row = check_data(tmp_path, name, progress=False).iloc[0]
    assert word in row.note + row.todo and "zebras" not in row.note


def test_the_path_that_was_looked_at_is_whole(tmp_path, monkeypatch):
    (tmp_path / "DATA").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for root, looked in (("DATA", "DATA"), ("./no/../DATA", "no/../DATA"), ("~/DATA", "DATA")):
        with pytest.raises(DataError, match=f"eurosat is not in {tmp_path}/{looked}"):
            load_task("eurosat", root=root)
        assert "absent" in set(check_data(root, progress=False).state)
    write_benchmark(tmp_path / "DATA", "dtd")
    assert load_task("dtd", 1, root="~/DATA") == load_task("dtd", 1, root=tmp_path / "DATA")
    with pytest.raises(DataError, match="root should be a path, got 3"):
        load_task("dtd", root=3)
    with pytest.raises(DataError, match="root should be a path, got None"):
        check_data(None)


def test_lists_that_cannot_be_read(tmp_path, monkeypatch):
    write_benchmark(tmp_path, "dtd")

    def refused(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.read_text", refused)
    with pytest.raises(DataError, match="cannot read the list .*split_zhou_Desc.*Permission denied"):
        load_task("dtd", root=tmp_path)
