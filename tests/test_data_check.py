"""`check_data`: ready, incomplete and absent benchmarks, and images that do not open."""

import pytest

from cbbt.data.cards import CARDS
from cbbt.data.check import check_data
from cbbt.data.load import load_task
from cbbt.data.task import DataError

from .data_layouts import split_entries, write, write_benchmark, write_split


def report(root, name, **options):
    return check_data(root, [name], progress=False, **options).iloc[0]


def test_all_eleven_ready_and_their_sizes_told(tmp_path):
    for name in CARDS:
        write_benchmark(tmp_path, name)
    table = check_data(tmp_path, verify_images=True, progress=False)
    assert list(table.dataset) == list(CARDS) and set(table.state) == {"ready"}
    assert (table.present == table.expected).all() and (table.todo == "").all()
    row = table.set_index("dataset").loc["dtd"]
    assert row.present == 33
    assert row.note == (
        "not the published sizes: classes 3 instead of 47, train 18 instead of 2820, "
        "val 9 instead of 1128, test 6 instead of 1692"
    )


def test_absent_benchmarks_come_with_words(tmp_path):
    table = check_data(tmp_path, progress=False).set_index("dataset")
    assert set(table.state) == {"absent"} and (table.present == 0).all()
    assert table.expected["dtd"] == 2820 + 1128 + 1692
    for name, card in CARDS.items():
        assert card.folder in table.todo[name] and card.lists[0] in table.todo[name]
    assert "no longer answers" in table.todo["stanford_cars"] and "mirror" in table.todo["sun397"]


def test_missing_images_are_counted_and_the_first_named(tmp_path):
    folder = write_benchmark(tmp_path, "eurosat")
    for number in range(6):
        (folder / "2750" / "class_1" / f"train_{number}.jpg").unlink()
    row = report(tmp_path, "eurosat")
    assert (row.state, row.present, row.expected) == ("incomplete", 27, 33)
    assert row.missing == tuple(f"class_1/train_{number}.jpg" for number in range(5))
    assert "phelber/EuroSAT" in row.todo


def test_missing_or_wrong_lists_make_a_benchmark_incomplete(tmp_path):
    folder = write_benchmark(tmp_path, "dtd")
    (folder / CARDS["dtd"].lists[0]).rename(tmp_path / "away")
    row = report(tmp_path, "dtd")
    assert row.state == "incomplete" and row.missing == (CARDS["dtd"].lists[0],)
    assert "is missing" in row.todo and "DATASETS.md" in row.todo and "not counted" in row.note
    write(folder / CARDS["dtd"].lists[0], "{")
    row = report(tmp_path, "dtd")
    assert row.state == "incomplete" and "is not JSON" in row.todo
    (folder / "images").rename(folder / "elsewhere")
    assert report(tmp_path, "dtd").missing == ("images",)


def test_broken_images_are_named_when_asked_for(tmp_path):
    images = write_benchmark(tmp_path, "oxford_pets") / "images" / "class_0"
    whole = (images / "test_0.jpg").read_bytes()
    write(images / "test_0.jpg", whole[: len(whole) // 2])
    write(images / "test_1.jpg", "no picture")
    write(images / "train_0.jpg", "")
    assert report(tmp_path, "oxford_pets").state == "ready"
    row = report(tmp_path, "oxford_pets", verify_images=True)
    assert (row.state, row.present, row.broken_count) == ("incomplete", 33, 3)
    assert row.broken == ("class_0/train_0.jpg", "class_0/test_0.jpg", "class_0/test_1.jpg")


def test_a_root_that_is_no_folder_holds_nothing(tmp_path):
    for root, note in ((tmp_path / "nowhere", "nowhere does not exist"), (write(tmp_path / "file"), "file is a file")):
        table = check_data(root, progress=False)
        assert len(table) == 11 and set(table.state) == {"absent"} and (table.present == 0).all()
        assert table.note.str.endswith(note).all() and (table.todo != "").all()


def test_names_that_no_file_system_takes_count_as_missing(tmp_path):
    entries = split_entries("dtd")
    entries["train"][0][0] = "a" * 300 + ".jpg"
    write_benchmark(tmp_path, "dtd")
    write_split(tmp_path, "dtd", entries)
    row = report(tmp_path, "dtd")
    assert (row.state, row.present, row.expected) == ("incomplete", 32, 33)
    with pytest.raises(DataError, match="1 of 27 drawn images are missing"):
        load_task("dtd", shots=6, root=tmp_path)


def test_lists_that_are_no_text_make_a_benchmark_incomplete(tmp_path):
    write(write_benchmark(tmp_path, "imagenet") / "classnames.txt", b"n00 caf\xe9")
    assert "not text in UTF-8" in report(tmp_path, "imagenet").todo


def test_wrong_questions(tmp_path):
    with pytest.raises(DataError, match="no benchmark is called 'cifar': choose from imagenet"):
        check_data(tmp_path, "cifar")
    for names in (3, [3], [["dtd"]]):
        with pytest.raises(DataError, match="no benchmark is called .*3|dtd.*: choose from imagenet"):
            check_data(tmp_path, names)


def test_progress_is_shown_unless_switched_off(tmp_path, capsys):
    write_benchmark(tmp_path, "dtd")
    check_data(tmp_path, ["dtd"], progress=False)
    assert capsys.readouterr().err == ""
    check_data(tmp_path, ["dtd"])
    assert "check data: 100%" in capsys.readouterr().err
