"""Folders of one's own: both layouts, the fixed split, and what is refused."""

import json
import os
import shutil
import unicodedata
import warnings

import pytest
from PIL import features

from cbbt.data.folders import fixed_split
from cbbt.data.load import load_task
from cbbt.data.names import class_table, read_class_names, require_distinct_prompts
from cbbt.data.task import DataError, files_digest, split_digest

from .data_layouts import PICTURE, write, write_benchmark, write_split


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


def images_of(task):
    return task.train + task.val + task.test


def test_common_endings_count_and_the_rest_is_said(tmp_path):
    folder = class_folders(tmp_path / "birds", count=0)
    endings = "JPG jpeg jpe jfif png apng bmp dib tif tiff webp gif ppm pgm jp2 tga".split()
    endings += ["avif"] * bool(features.check("avif"))  # of Pillow from 11.3 on
    for ending in endings:
        write(folder / "owl" / f"a.{ending}")
        write(folder / "elk" / f"a.{ending}")
    for unseen in ("owl/Thumbs.db", "elk/desktop.ini", ".DS_Store", "owl/._a.jpg"):
        write(folder / unseen)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(images_of(load_task(folder))) == 2 * len(endings)
    for other in ("owl/.b.jpg", "owl/b.heic", "elk/c.HEIC", ".cache/x/a.jpg", "README.md", "elk/x.mp4", "elk/x.pdf"):
        write(folder / other)
    for system in ("__MACOSX", "owl/@eaDir", "elk/.ipynb_checkpoints"):
        write(folder / system / "owl" / "a.jpg")
    said = (
        "birds: skipped 10 entries that are hidden or not images, "
        "3 hidden, 2 .heic, 1 .md, 1 __MACOSX, 1 .mp4, 1 .pdf, 1 @eaDir; first .cache"
    )
    with pytest.warns(UserWarning, match=said) as caught:
        task = load_task(folder)
    assert len(caught) == 1 and task.class_names == ("elk", "owl") and len(images_of(task)) == 2 * len(endings)


@pytest.mark.parametrize(
    "name",
    ["great owl (1)", "c++", "R&B", "it's", 'say "a"', "$5", "100%", "猫", "Ärger", "owl.", "owl ", " owl", "a.jpg", "{}", "#1"],
)
def test_class_folders_of_any_name(tmp_path, name):
    task = load_task(class_folders(tmp_path / "my data (new)", ("elk", name)), shots=1)
    assert set(task.class_names) == {"elk", name}
    assert all(item.image().size == (16, 12) for item in images_of(task))
    assert class_table(task).prompt[task.class_names.index(name)] == f"a photo of a {name.strip()}."


def test_numbered_folders_are_in_the_order_of_their_numbers(tmp_path):
    numbers = [str(n) for n in range(1, 13)]
    task = load_task(class_folders(tmp_path / "flowers", numbers))
    assert task.class_names == tuple(numbers)
    mixed = load_task(class_folders(tmp_path / "mixed", ["1", "2", "10", "owl"]))
    assert mixed.class_names == ("1", "10", "2", "owl")
    for split in ("train", "val", "test"):  # the split of a class depends on its own name alone
        parts = [[i.key for i in getattr(t, split) if i.class_name in ("1", "2", "10")] for t in (task, mixed)]
        assert sorted(parts[0]) == sorted(parts[1])
    split = tmp_path / "split"
    for part in ("train", "test"):
        class_folders(split / part, ["2", "10", "009"], count=2)
    assert load_task(split).class_names == ("2", "009", "10")
    names = tuple(f"flower {n}" for n in numbers)
    named = load_task(tmp_path / "flowers", 1, class_names=names)
    assert all(item.key.startswith(f"{names.index(item.class_name) + 1}/") for item in images_of(named))
    table = class_table(named)
    assert table.iloc[9].tolist() == ["10", "flower 10", "a photo of a flower 10."] and len(table) == 12


@pytest.mark.parametrize("form", ["dict", "numbers", "names.yaml", "names.yml", "names.json", "NAMES.JSON"])
def test_names_of_folders_as_a_mapping(tmp_path, form):
    folder = class_folders(tmp_path / "flowers", [f"class_{n}" for n in range(1, 12)])
    names = {f"class_{n}": f"flower {n}" for n in range(11, 0, -1)}
    if form == "numbers":
        folder = class_folders(tmp_path / "numbers", map(str, range(1, 12)))
        names = {n: f"flower {n}" for n in range(11, 0, -1)}
    given = names
    if form.lower().endswith("json"):
        given = write(tmp_path / form, json.dumps(names))
    elif "." in form:
        given = str(write(tmp_path / form, "# names\n" + "".join(f"{old}: {new}\n" for old, new in names.items())))
    for item in images_of(load_task(folder, class_names=given)):
        assert item.class_name == "flower " + item.key.split("/")[0].removeprefix("class_")


def test_a_file_of_names_is_all_text(tmp_path):
    folder = class_folders(tmp_path / "birds", ["010", "8"])
    assert load_task(folder, class_names=write(tmp_path / "a.yaml", "010: yes\n8: 2024\n")).class_names == ("2024", "yes")
    assert load_task(folder, class_names=write(tmp_path / "b.yaml", "- owl\n- no\n")).class_names == ("owl", "no")
    assert read_class_names(write(tmp_path / "c.json", b"\xef\xbb\xbf" + json.dumps({"8": "\U0001f989"}).encode())) == {
        "8": "\U0001f989"
    }


@pytest.mark.parametrize(
    "given, message",
    [
        ("nowhere.yaml", "there is no file /.*/nowhere.yaml; expected names in label order, a mapping"),
        (3, "class_names should be names in label order, a mapping .* got 3"),
        ({"a", "b"}, "class_names should be names in label order, a mapping .* got {"),
        ("flat.yaml", "expected a list or a mapping in .*flat.yaml, got 'owl elk'"),
        ("broken.json", "cannot read .*broken.json: Expecting"),
        ("broken.yaml", "cannot read .*broken.yaml: while parsing"),
        ("latin.yaml", "cannot read .*latin.yaml: 'utf-8' codec"),
        ("nested.yaml", "non-empty strings, got ."),
        ({1: "a", "1": "b"}, "class_names names the class '1' twice"),
        ({1: "a"}, "omits 2, 10: a number means nothing to a model, name every class"),
        ({1: "a", 2: False, 10: "c"}, r"non-empty strings, got False \(in YAML quote numbers, yes and no\)"),
        ({"rose": "1"}, "renames the unknown class 'rose'; choose from 1, 2, 10"),
        (["a", "b"], "3 names in label order, or a mapping, got 2: a, b"),
        (["T shirt", "T_shirt", "c"], "the classes 'T shirt' and 'T_shirt' have the same prompt"),
        (["a", "_", "c"], "the class name '_' is empty in a prompt"),
    ],
)
def test_names_that_cannot_be(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    files = {"flat.yaml": "owl\nelk", "broken.json": "{", "broken.yaml": "a: [", "nested.yaml": "1: [a]"}
    for name, content in files.items():
        write(tmp_path / name, content)
    write(tmp_path / "latin.yaml", "1: é".encode("latin-1"))
    class_folders(tmp_path / "flowers", ["1", "2", "10"], count=2)
    with pytest.raises(DataError, match=message):
        load_task("flowers", class_names=given)


def test_names_in_label_order_are_refused_where_the_order_is_not_that_of_numbers(tmp_path):
    folder = class_folders(tmp_path / "birds", ["bird_1", "bird_2", "bird_10"], count=2)
    with pytest.raises(DataError, match="sorted as text, 'bird_10' is where 'bird_2' is by number; give a mapping"):
        load_task(folder, class_names=["a", "b", "c"])
    padded = class_folders(tmp_path / "padded", ["bird_01", "bird_02", "bird_10"], count=2)
    assert load_task(padded, class_names=["a", "b", "c"]).class_names == ("a", "b", "c")


def test_names_and_templates_that_a_tokenizer_would_cut_are_refused(tmp_path):
    folder = class_folders(tmp_path / "pets", ["cat <|endoftext|>", "dog"])
    with pytest.raises(DataError, match="class name 'cat <.endoftext.>' holds a start- or end-.*set another by class_names"):
        load_task(folder)
    names = {"cat <|endoftext|>": "cat"}
    with pytest.raises(DataError, match="class name '<start_of_text>' holds a start- or end-of-text token"):
        load_task(folder, class_names=names | {"dog": "<start_of_text>"})
    with pytest.raises(DataError, match="template 'a {} <end_of_text>' holds a start- or end-of-text token"):
        load_task(folder, class_names=names, template="a {} <end_of_text>")
    assert load_task(folder, class_names=names).class_names == ("cat", "dog")


def test_two_classes_with_one_prompt_are_named(tmp_path, box):
    one = class_folders(tmp_path / "one", ["T_shirt", "T shirt", "cap"])
    with pytest.raises(DataError, match="the classes 'T shirt' and 'T_shirt' have the same prompt"):
        load_task(one)
    assert load_task(one, class_names={"T_shirt": "vest"}).class_names == ("T shirt", "vest", "cap")
    two = load_task(class_folders(tmp_path / "two", ["Crane", "crane", "heron"]))
    with pytest.raises(DataError, match="the classes 'Crane' and 'crane' have the same prompt"):
        require_distinct_prompts(two, box)  # CLIP's tokenizer knows no capitals
    require_distinct_prompts(load_task(one, class_names={"T_shirt": "vest"}), box)
    folder = write_benchmark(tmp_path, "imagenet")
    write(folder / "classnames.txt", "n00 missile\nn01 Missile\nn02 tank\n")
    with pytest.warns(UserWarning, match="imagenet: the classes 'missile' and 'Missile' have the same prompt"):
        require_distinct_prompts(load_task("imagenet", root=tmp_path), box)


def test_names_are_composed_and_files_open_under_their_own(tmp_path):
    split = {"train": [["Ä/Ä.jpg", 0, "Ärger"], ["b.jpg", 1, "b"]], "val": [], "test": []}
    composed, decomposed = (
        class_folders(tmp_path / form / unicodedata.normalize(form, "Ärger"), [unicodedata.normalize(form, "é")])
        for form in ("NFC", "NFD")
    )
    for form, folder in (("NFC", composed), ("NFD", decomposed)):
        class_folders(folder, ["elk"])
        write(folder / "elk" / f"{unicodedata.normalize(form, 'ü')}.jpg")
    one, two = load_task(composed), load_task(decomposed)
    assert one.name == two.name and one.class_names == two.class_names == ("elk", "é")
    assert split_digest(one) == split_digest(two) and files_digest(one) == files_digest(two)
    assert all(item.image().size == (16, 12) for item in images_of(two))
    write_benchmark(tmp_path, "dtd")
    write_split(tmp_path, "dtd", unicodedata.normalize("NFD", json.dumps(split, ensure_ascii=False)))
    assert load_task("dtd", root=tmp_path).train[0].key == "Ä/Ä.jpg"
    assert load_task("dtd", root=tmp_path).class_names[0] == "Ärger"
    class_folders(composed, [unicodedata.normalize("NFD", "é")])
    with pytest.raises(DataError, match=r"holds 'é' twice, in two Unicode forms: '(e\\u0301|\\xe9)' and "):
        load_task(composed)


def test_folders_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    folder = class_folders(tmp_path / "birds")
    (folder / "loop").symlink_to(folder / "loop")
    with pytest.raises(DataError, match="cannot read the folder .*birds: .*loop"):
        load_task(folder)
    (folder / "loop").unlink()
    (folder / "up").symlink_to(folder)
    with pytest.raises(DataError, match="the class folder .*up holds the folder owl: expected images only"):
        load_task(folder)
    (folder / "up").unlink()
    (folder / "owl" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(DataError, match="cannot read an image of .*owl: .*gone.jpg"):
        load_task(folder)
    (folder / "owl" / "gone.jpg").unlink()
    write(folder / "owl" / "nil.jpg", "")
    with pytest.raises(DataError, match="owl holds 1 empty files, first nil.jpg: replace or remove them"):
        load_task(folder)
    (folder / "owl" / "nil.jpg").unlink()
    os.mkdir(os.fsencode(folder) + b"/caf\xe9")
    with pytest.raises(DataError, match="a name that cannot be read as text, 'caf.udce9': rename it"):
        load_task(folder)

    def refused(place):
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match="cannot read the folder .*birds: .*Permission denied"):
        load_task(folder)


def test_one_folder_under_its_names_is_one_data_set(tmp_path, monkeypatch):
    folder = class_folders(tmp_path / "birds")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    tasks = [load_task(name, shots=2) for name in (folder, "birds", "./birds/", "~/birds", str(folder))]
    assert all(task == tasks[0] for task in tasks) and tasks[0].train[0].path.is_absolute()
    with pytest.raises(DataError, match=f"folder 'brids' .{tmp_path}/brids is not a folder."):
        load_task("brids")
    with pytest.raises(DataError, match=f"folder '~/nowhere' .{tmp_path}/nowhere is not a folder"):
        load_task("~/nowhere")
    with pytest.raises(DataError, match="there is no task or folder 'a{300}'"):
        load_task("a" * 300)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: (f / "empty").mkdir(), "the class folder .*empty holds 0 images, expected at least 2; .* .png"),
        (lambda f: write(f / "b" / "a.heic"), r"class folder .*b holds 0 images \(1 other entries, first a.heic\), expected"),
        (lambda f: write(f / "one" / "a.jpg"), "the class folder .*one holds 1 images, expected at least 2"),
        (lambda f: write(f / "a.jpg"), "holds 1 images outside class folders, first a.jpg"),
        (lambda f: write(f / "owl" / "night" / "a.jpg"), "class folder .*owl holds the folder night: expected images"),
        (lambda f: write(f / "train" / "owl" / "a.jpg"), "mixes two layouts: .* are next to owl, sea_gull"),
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
        (lambda f: (f / "validation").mkdir(), "mixes two layouts: train/val/test are next to validation"),
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
        with pytest.raises(DataError, match="holds one class, owl: expected at least two"):
            load_task(layout)
    with pytest.raises(DataError, match="there is no task or folder '.*nowhere'"):
        load_task(tmp_path / "nowhere")
    with pytest.raises(DataError, match="shots=6, but class 'owl' of birds has 5 training images"):
        load_task(class_folders(tmp_path / "birds"), shots=6)
    (tmp_path / "birds" / "owl" / "00.jpg").write_bytes(PICTURE[:150])
    task = load_task(tmp_path / "birds")
    broken = next(item for item in task.train + task.val + task.test if item.key == "owl/00.jpg")
    with pytest.raises(DataError, match="cannot read image .*owl/00.jpg"):
        broken.image()
