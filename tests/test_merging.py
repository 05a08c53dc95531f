"""Merging records: what fits is copied once, what does not stops everything."""

import json
import math

import pytest

import cbbt
from cbbt.results.records import RECORD


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    for seed in (1, 2):
        cbbt.run(cbbt.RunConfig("digits", "tip_adapter", shots=1, seed=seed), out=folder)
    return {record["run_id"]: record for record in cbbt.load_records(folder)}


def lay(folder, records, **changes):
    for name, record in records.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / RECORD).write_text(json.dumps(record | changes))
    return folder


def test_runs_from_two_places_come_together(records, tmp_path):
    first, second = records
    lay(tmp_path / "here", {first: records[first]})
    lay(tmp_path / "there", records, seconds={"fit": 9.0}, device="another", commit=None)
    assert cbbt.merge_records(tmp_path / "there", tmp_path / "here") == [second]
    assert [record["run_id"] for record in cbbt.load_records(tmp_path / "here")] == sorted(records)
    assert cbbt.load_records(tmp_path / "here")[0]["device"] == records[first]["device"]  # what was there stays
    assert cbbt.merge_records([tmp_path / "there"], tmp_path / "here") == []


def test_a_conflict_stops_everything_before_the_first_copy(records, tmp_path):
    first, second = records
    lay(tmp_path / "here", {second: records[second]})
    lay(tmp_path / "there", records, scores={"test_accuracy": 1.0})
    with pytest.raises(ValueError, match=f"two records of {second} differ in scores"):
        cbbt.merge_records(tmp_path / "there", tmp_path / "here")
    assert [folder.name for folder in (tmp_path / "here").iterdir()] == [second]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"config": {"dataset": "digits", "epoch": 3}}, "no valid configuration: unknown setting 'epoch'"),
        ({"run_id": "digits"}, "has the name digits, but its configuration is that of"),
        ({"scores": {"test_accuracy": math.nan}}, "record.json is not JSON .NaN is not a JSON number"),
        ({"scores": {"test_accuracy": 101}}, "should be a percentage"),
    ],
)
def test_malformed_records_are_named(records, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        cbbt.merge_records(lay(tmp_path / "there", records, **changes), tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_files_that_are_no_records(records, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder of runs"):
        cbbt.merge_records(tmp_path, tmp_path / "here")
    name = next(iter(records))
    lay(tmp_path / "there", {name: {"run_id": name}})
    with pytest.raises(ValueError, match="lacks config, scores"):
        cbbt.merge_records(tmp_path / "there", tmp_path / "here")
    (tmp_path / "there" / name / RECORD).write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        cbbt.merge_records(tmp_path / "there", tmp_path / "here")
