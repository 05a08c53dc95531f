"""Records read back: what is no record is named, with the way on."""

import json

import pytest

from cbbt.results.records import RECORD, REQUIRED, load_records, read_record_file, runs_table

WHOLE = dict.fromkeys(REQUIRED, {}) | {"run_id": "a"}


def lay(folder, content: bytes):
    (folder / "runs" / "a").mkdir(parents=True)
    path = folder / "runs" / "a" / RECORD
    path.write_bytes(content)
    return path


def test_a_record_is_read_back(tmp_path):
    path = lay(tmp_path, json.dumps(WHOLE | {"device": "数"}, ensure_ascii=False).encode())
    assert read_record_file(path)["device"] == "数" and load_records(str(tmp_path / "runs")) == [read_record_file(path)]


@pytest.mark.parametrize(
    "content, what",
    [
        (b"", "is not JSON"),
        (json.dumps(WHOLE).encode()[:40], "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (json.dumps(WHOLE | {"scores": {"test_accuracy": float("nan")}}).encode(), "NaN is not a JSON number"),
        (b"[]", "lacks run_id"),
        (b'{"run_id": "a"}', "lacks config"),
    ],
)
def test_what_is_no_record_is_named_with_the_way_on(tmp_path, content, what):
    path = lay(tmp_path, content)
    for read in (lambda: read_record_file(path), lambda: load_records(path.parent.parent)):
        with pytest.raises(ValueError, match=f"{path} .*{what}|{path} {what}") as error:
            read()
        assert str(error.value).endswith("delete this file and run again") and "\n" not in str(error.value)


def test_a_folder_without_records_is_named_by_its_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/results/rnus is not a folder: expected a folder of runs"):
        load_records("results/rnus")
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} holds no <run>/{RECORD}: expected a folder of runs"):
        load_records(".")


@pytest.mark.parametrize("epochs", [0, 3])
def test_a_table_says_how_many_models_the_best_on_the_judged_split_was_picked_from(epochs):
    record = WHOLE | {"config": {"dataset": "digits"}, "seconds": {"fit": 1.0}, "n_judged": 9}
    record |= {"history": [{"epoch": epoch + 1} for epoch in range(epochs)]}
    assert runs_table([record]).looks.tolist() == [epochs]
