"""Downloads from a server on the loopback interface, and the splits torchvision serves."""

import errno
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from scipy.io import savemat
from torchvision import datasets

from cbbt.data.cards import CARDS
from cbbt.data.download import SOURCES, Source, download_data
from cbbt.data.load import load_task
from cbbt.data.task import DataError
from cbbt.runs.batch import fetch_missing, grid_of

from .data_layouts import PICTURE, coop_root, write, write_benchmark, write_split


class Files(BaseHTTPRequestHandler):
    """Serves `server.files`; an entry of `server.cut` ends the first answer after so many bytes."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        self.server.agents.add(self.headers.get("User-Agent"))
        content = self.server.files.get(self.path)
        if content is None:
            return self.send_error(*self.server.refusal)
        start = 0
        if self.headers.get("Range") and self.server.ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: self.server.cut.pop(self.path, None)])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        server.files, server.cut, server.asked, server.ranges = {}, {}, [], True
        server.agents, server.refusal = set(), (404, "gone")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def packed(files: dict, kind: str = "tar.gz") -> bytes:
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return stream.getvalue()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def served(server, files: dict[str, bytes], inner: str = ".") -> Source:
    """A source of `files`, put on the server, with their MD5 sums."""
    server.files |= {f"/{name}": content for name, content in files.items()}
    address = f"http://127.0.0.1:{server.server_port}"
    return Source(tuple((f"{address}/{name}", hashlib.md5(c).hexdigest()) for name, c in files.items()), inner)


def noise(size: int) -> bytes:
    return np.random.default_rng(1).bytes(size)


def eurosat(server) -> Source:
    pictures = {f"2750/{name}/{name}_{n}.jpg": PICTURE for name in ("River", "Forest") for n in range(10)}
    return served(server, {"EuroSAT.zip": packed(pictures | {"2750/ballast.bin": noise(50_000)}, "zip")})


SPLIT = {"train": [["River/River_0.jpg", 0, "River"]], "val": [], "test": []}


def fetch(name, root, source):
    return download_data(name, root, source=source, progress=False)


ARCHIVES = {
    "eurosat": eurosat,
    "dtd": lambda s: served(s, {"dtd.tar.gz": packed({"dtd/images/a/b.jpg": PICTURE, "dtd/labels/x.txt": b""})}, "dtd"),
    "food101": lambda s: served(s, {"food.tar.gz": packed({"food-101/images/a/b.jpg": PICTURE})}, "food-101"),
    "oxford_pets": lambda s: served(
        s,
        {"images.tar.gz": packed({"images/b.jpg": PICTURE}), "annotations.tar.gz": packed({"annotations/test.txt": b"b 1 1 1"})},
    ),
    "oxford_flowers": lambda s: served(s, {"102.tgz": packed({"jpg/b.jpg": PICTURE}), "setid.mat": b"mat"}),
    "fgvc_aircraft": lambda s: served(s, {"f.tar.gz": packed({"f/data/images/b.jpg": PICTURE})}, "f/data"),
    "caltech101": lambda s: served(
        s,
        {"caltech-101.zip": packed({"caltech-101/101.tar.gz": packed({"101_ObjectCategories/a/b.jpg": PICTURE})}, "zip")},
        "caltech-101",
    ),
}


def with_list(server, source: Source, content: bytes) -> Source:
    """The source with a split file of EuroSAT, put on the server."""
    return replace(source, lists=served(server, {"split_zhou_EuroSAT.json": content}).files)


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_become_coops_layout(tmp_path, server, name):
    source = ARCHIVES[name](server)
    assert source.inner.count("/") == SOURCES[name].inner.count("/")
    folder = fetch(name, tmp_path / "data", source)
    card = CARDS[name]
    assert folder == tmp_path / "data" / card.folder
    assert any(path.suffix == ".jpg" for path in card.image_root(tmp_path / "data").rglob("*"))
    assert not [path for path in folder.rglob("*") if path.suffix in ("", ".part", ".gz", ".zip") and path.is_file()]
    assert not (folder / ".download").exists()
    asked = len(server.asked)
    assert fetch(name, tmp_path / "data", source) == folder and len(server.asked) == asked  # nothing twice
    with pytest.raises(DataError, match="is missing. It says which images"):  # no split is made up
        load_task(name, root=tmp_path / "data")


def test_every_benchmark_that_is_known_to_be_served_has_its_list():
    assert set(ARCHIVES) == {name for name, source in SOURCES.items() if source.files}
    for name, source in SOURCES.items():
        lists = [address.rpartition("/")[2] for address, _ in source.lists]
        assert lists == [file for file in CARDS[name].lists if file.startswith("split_zhou")]


@pytest.mark.parametrize("name", ["eurosat", "caltech101", "dtd"])
def test_the_sum_of_a_split_is_that_of_the_published_file(tmp_path, name):
    file = coop_root(tmp_path, name, name) / CARDS[name].folder / CARDS[name].lists[0]
    assert hashlib.md5(file.read_bytes()).hexdigest() == SOURCES[name].lists[0][1]


def test_an_interrupted_download_is_continued(tmp_path, server):
    source = eurosat(server)
    server.cut["/EuroSAT.zip"] = 30_000
    with pytest.raises(DataError, match="cannot download http://127.0.0.1:.*/EuroSAT.zip: .*30000 of .*by hand: get"):
        fetch("eurosat", tmp_path, source)
    assert not CARDS["eurosat"].image_root(tmp_path).exists()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["EuroSAT.zip.part"]
    fetch("eurosat", tmp_path, source)
    assert server.asked[-1] == ("/EuroSAT.zip", "bytes=30000-")
    assert (tmp_path / "eurosat" / "2750" / "River" / "River_0.jpg").read_bytes() == PICTURE


def test_a_server_without_ranges_starts_again(tmp_path, server):
    source = eurosat(server)
    server.ranges, server.cut["/EuroSAT.zip"] = False, 30_000
    with pytest.raises(DataError, match="30000 of"):
        fetch("eurosat", tmp_path, source)
    assert (fetch("eurosat", tmp_path, source) / "2750" / "River").is_dir()


def test_a_part_that_is_too_long_starts_again(tmp_path, server):
    source = eurosat(server)
    write(tmp_path / "eurosat" / ".download" / "EuroSAT.zip.part", noise(90_000))
    assert (fetch("eurosat", tmp_path, source) / "2750" / "River").is_dir()
    assert [asked for _, asked in server.asked] == ["bytes=90000-", None]


def test_damaged_files_are_not_taken_for_good(tmp_path, server):
    source = eurosat(server)
    good = server.files["/EuroSAT.zip"]
    server.files["/EuroSAT.zip"] = noise(len(good))
    with pytest.raises(DataError, match="EuroSAT.zip is not the expected file: MD5 .* it was deleted. .*by hand"):
        fetch("eurosat", tmp_path, source)
    unsigned = Source(tuple((address, None) for address, _ in source.files))
    with pytest.raises(DataError, match="an archive cannot be unpacked .* the download was deleted"):
        fetch("eurosat", tmp_path, unsigned)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    server.files["/EuroSAT.zip"] = good
    assert (fetch("eurosat", tmp_path, source) / "2750" / "River").is_dir()


@pytest.mark.parametrize("cut", [200, 1500])
def test_a_truncated_tar_is_not_taken_for_good(tmp_path, server, cut):
    content = packed({"dtd/images/a/b.jpg": noise(1000), "dtd/images/a/c.jpg": noise(2000)})[:cut]
    served(server, {"dtd.tar.gz": content})
    source = Source(((f"http://127.0.0.1:{server.server_port}/dtd.tar.gz", None),), "dtd")
    with pytest.raises(DataError, match="an archive cannot be unpacked"):
        fetch("dtd", tmp_path, source)
    assert not CARDS["dtd"].image_root(tmp_path).exists()


def test_archives_cannot_write_outside(tmp_path, server):
    content = packed({"../../../escaped.txt": b"x", "dtd/images/a/b.jpg": PICTURE})
    source = served(server, {"dtd.tar.gz": content}, "dtd")
    with pytest.raises(DataError, match="an archive cannot be unpacked"):
        fetch("dtd", tmp_path / "data", source)
    assert not list(tmp_path.rglob("escaped.txt"))


@pytest.mark.parametrize("member", ["../evil.jpg", "2750/../../evil.jpg", "/evil.jpg", "2750\\..\\evil.jpg"])
def test_a_zip_that_leads_outside_is_refused_whole(tmp_path, server, member):
    source = served(server, {"EuroSAT.zip": packed({"2750/River/a.jpg": PICTURE, member: b"x"}, "zip")})
    with pytest.raises(DataError, match="cannot be unpacked .the member .* leads outside.*the download was deleted"):
        fetch("eurosat", tmp_path, source)
    assert not CARDS["eurosat"].image_root(tmp_path).exists() and not list(tmp_path.rglob("*evil*"))


def test_what_cannot_be_fetched_says_why(tmp_path, server):
    with pytest.raises(DataError, match="stanford_cars cannot be downloaded.*no longer answers"):
        download_data("stanford_cars", tmp_path)
    with pytest.raises(DataError, match="sun397 cannot be downloaded .caltech101, .*answer only in part"):
        download_data("sun397", tmp_path)
    with pytest.raises(DataError, match="imagenet cannot be downloaded .caltech101, .*register at image-net.org"):
        download_data("imagenet", tmp_path)
    with pytest.raises(DataError, match="no benchmark is called 'cifar': choose from imagenet, caltech101"):
        download_data("cifar", tmp_path)
    source = served(server, {"a.zip": b""})
    server.files.clear()
    with pytest.raises(DataError, match="cannot download http://127.0.0.1:.*/a.zip: HTTP Error 404: gone. By hand"):
        fetch("eurosat", tmp_path, source)
    empty = served(server, {"b.zip": packed({"other/x": b""}, "zip")})
    with pytest.raises(DataError, match="the archives hold no folder 2750"):
        fetch("eurosat", tmp_path, empty)
    nobody = Source((("http://127.0.0.1:9/c.zip", None),))
    with pytest.raises(DataError, match="cannot download http://127.0.0.1:9/c.zip"):
        fetch("eurosat", tmp_path, nobody)


@pytest.mark.parametrize("code, again", [(403, False), (404, False), (410, False), (429, True), (503, True)])
def test_only_what_may_pass_is_to_be_called_again(tmp_path, server, code, again):
    source = eurosat(server)
    server.files.clear()
    server.refusal = (code, "no")
    with pytest.raises(DataError, match=f"HTTP Error {code}: no. .*[Bb]y hand: get EuroSAT") as caught:
        fetch("eurosat", tmp_path, source)
    assert ("Call again" in str(caught.value)) == again
    assert [agent[:5] for agent in server.agents] == ["cbbt/"]


def test_an_address_that_is_none(tmp_path):
    with pytest.raises(DataError, match="cannot download c.zip: unknown url type: 'c.zip'. By hand"):
        fetch("eurosat", tmp_path, Source((("c.zip", None),)))


def test_a_root_that_cannot_be_written(tmp_path, server):
    with pytest.raises(DataError, match="eurosat: cannot write to .*file/eurosat: .* choose another root"):
        fetch("eurosat", write(tmp_path / "file"), eurosat(server))
    assert not server.asked


@pytest.mark.parametrize("full", ["cbbt.data.download._receive", "cbbt.data.download._extract", "pathlib.Path.rename"])
def test_a_full_disk_is_said_and_nothing_is_taken_for_whole(tmp_path, server, monkeypatch, full):
    source = eurosat(server)

    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DataError, match="cannot write to .*eurosat: .*No space left .*Make room"):
        patch.setattr(full, no_room)
        fetch("eurosat", tmp_path, source)
    assert not CARDS["eurosat"].image_root(tmp_path).exists()
    assert (fetch("eurosat", tmp_path, source) / "2750" / "River").is_dir()


def test_an_older_torchvision_is_not_blamed_on_the_files(tmp_path, monkeypatch):
    flowers = tmp_path / "oxford_flowers"
    write(flowers / "jpg" / "image_00001.jpg")
    savemat(flowers / "imagelabels.mat", {"labels": np.array([[2, 1]])})
    savemat(flowers / "setid.mat", {"trnid": [[1, 2]], "valid": [[1, 2]], "tstid": [[1, 2]]})
    monkeypatch.delattr(datasets.Flowers102, "classes", raising=False)
    with pytest.raises(DataError, match=r"^torchvision \d.* does not name the flowers: install a newer one"):
        load_task("oxford_flowers", root=tmp_path, split="torchvision")


def test_a_split_file_put_there_first_stays(tmp_path, server):
    write_split(tmp_path, "eurosat", SPLIT)
    fetch("eurosat", tmp_path, with_list(server, eurosat(server), b"another"))
    assert [path for path, _ in server.asked] == ["/EuroSAT.zip"]
    assert load_task("eurosat", shots=1, root=tmp_path).train[0].image().size == (16, 12)


def test_the_split_is_fetched_beside_the_images(tmp_path, server):
    """With the images, beside images that were there, and beside images that nobody serves."""
    source = with_list(server, eurosat(server), json.dumps(SPLIT).encode())
    fetch("eurosat", tmp_path / "new", source)
    assert load_task("eurosat", shots=1, root=tmp_path / "new").train[0].image().size == (16, 12)
    for name, path in (("there", "River/River_0.jpg"), ("unserved", "Forest/Forest_1.jpg")):
        write(CARDS["eurosat"].image_root(tmp_path / name) / path)
    server.asked.clear()
    fetch("eurosat", tmp_path / "there", source)
    fetch("eurosat", tmp_path / "unserved", replace(source, files=()))
    assert load_task("eurosat", root=tmp_path / "unserved").class_names == ("River",)
    assert {path for path, _ in server.asked} == {"/split_zhou_EuroSAT.json"} and len(server.asked) == 2
    fetch("eurosat", tmp_path / "there", source)
    assert len(server.asked) == 2  # nothing twice


def test_a_split_that_fails_leaves_the_images_and_is_continued(tmp_path, server):
    source = with_list(server, eurosat(server), json.dumps(SPLIT).encode())
    file = tmp_path / "eurosat" / "split_zhou_EuroSAT.json"
    server.cut["/split_zhou_EuroSAT.json"] = 20
    with pytest.raises(DataError, match=f"20 of .*by hand: put it into {file.parent}, from CoOp's DATASETS.md"):
        fetch("eurosat", tmp_path, source)
    assert CARDS["eurosat"].image_root(tmp_path).is_dir() and not file.exists()
    good = server.files["/split_zhou_EuroSAT.json"]
    server.files["/split_zhou_EuroSAT.json"] = good[:-1] + b" "
    with pytest.raises(DataError, match="split_zhou_EuroSAT.json is not the expected file: MD5"):
        fetch("eurosat", tmp_path, source)
    assert server.asked[-1] == ("/split_zhou_EuroSAT.json", "bytes=20-") and not file.exists()
    server.files["/split_zhou_EuroSAT.json"] = good
    fetch("eurosat", tmp_path, source)
    assert file.read_bytes() == good and sorted(path.name for path in file.parent.iterdir()) == ["2750", file.name]


def test_a_batch_fetches_what_its_benchmarks_lack(tmp_path, server, monkeypatch):
    monkeypatch.setitem(SOURCES, "eurosat", with_list(server, eurosat(server), json.dumps(SPLIT).encode()))
    folders = {name: str(tmp_path / name) for name in ("results", "tables", "figures")}
    values = folders | {"datasets": ["eurosat", "digits"], "methods": ["zero_shot"], "shots": [1], "seeds": [1]}
    file = write(tmp_path / "grid.yaml", json.dumps(values))
    grid = grid_of(["snakemake", "--configfile", str(file), "--config", f"data_root={tmp_path}", "seeds=[2, 3]", "--quiet"])
    assert grid.seeds == (2, 3)
    with pytest.raises(DataError, match="eurosat is not in"):
        grid.require_data()
    fetch_missing(grid)
    grid.require_data()
    assert load_task("eurosat", root=tmp_path).class_names == ("River",)
    asked = len(server.asked)
    (tmp_path / "eurosat" / "2750" / "River" / "River_0.jpg").unlink()
    with pytest.raises(DataError, match="eurosat is incomplete: .*get EuroSAT.zip.*Or move .*2750 away and call again"):
        fetch_missing(grid)
    assert len(server.asked) == asked


def test_the_torchvision_split_is_fixed_and_asked_for_by_name(tmp_path, server):
    for place in ("one", "two"):
        fetch("eurosat", tmp_path / place, eurosat(server))
    one, two = (load_task("eurosat", root=tmp_path / place, split="torchvision") for place in ("one", "two"))
    assert one.class_names == ("Forest", "River") and [len(s) for s in (one.train, one.val, one.test)] == [10, 4, 6]
    assert [i.key for i in one.train + one.val + one.test] == [i.key for i in two.train + two.val + two.test]
    assert len(load_task("eurosat", shots=2, root=tmp_path / "one", split="torchvision").train) == 4


def keys(task):
    return {split: [item.key for item in getattr(task, split)] for split in ("train", "val", "test")}


def test_official_lists_are_torchvisions(tmp_path):
    food = tmp_path / "food-101"
    for split, count in (("train", 10), ("test", 3)):
        names = {c: [f"{c}/{split}{n}" for n in range(count)] for c in ("ramen", "apple_pie")}
        write(food / "meta" / f"{split}.json", json.dumps(names))
        for key in sum(names.values(), []):
            write(food / "images" / f"{key}.jpg")
    task = load_task("food101", root=tmp_path, split="torchvision")
    theirs = {s: datasets.Food101(tmp_path, split=s) for s in ("train", "test")}
    assert task.class_names == tuple(theirs["test"].classes)
    assert [i.path for i in task.test] == theirs["test"]._image_files
    assert [i.label for i in task.test] == theirs["test"]._labels
    assert sorted(i.path for i in task.train + task.val) == sorted(theirs["train"]._image_files)
    assert (len(task.train), len(task.val)) == (16, 4)


def test_the_other_official_lists(tmp_path):
    pets = tmp_path / "oxford_pets"
    write(pets / "annotations" / "trainval.txt", "".join(f"Pug_{n} 2 2 1\nAbyssinian_{n} 1 1 1\n" for n in range(5)))
    write(pets / "annotations" / "test.txt", "# a remark\nPug_7 2 2 1\n")
    write(pets / "images" / "Pug_7.jpg")
    task = load_task("oxford_pets", root=tmp_path, split="torchvision")
    assert task.class_names == ("abyssinian", "pug") and keys(task)["test"] == ["Pug_7.jpg"]
    assert (len(task.train), len(task.val)) == (8, 2)

    write(tmp_path / "dtd" / "images" / "a" / "1.jpg")
    for number, split in enumerate(("train", "val", "test")):
        write(tmp_path / "dtd" / "labels" / f"{split}1.txt", f"b/{number}.jpg\na/{number}.jpg\n")
    task = load_task("dtd", root=tmp_path, split="torchvision")
    assert task.class_names == ("a", "b") and keys(task)["val"] == ["b/1.jpg", "a/1.jpg"]

    flowers = tmp_path / "oxford_flowers"
    write(flowers / "jpg" / "image_00001.jpg")
    savemat(flowers / "imagelabels.mat", {"labels": np.array([[2, 1, 2, 1]])})
    savemat(flowers / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 3]], "tstid": [[4, 4]]})
    task = load_task("oxford_flowers", root=tmp_path, split="torchvision")
    assert task.class_names == ("pink primrose", "hard-leaved pocket orchid")
    assert [(i.key, i.label) for i in task.train] == [("image_00001.jpg", 1), ("image_00002.jpg", 0)]

    for folder in ("BACKGROUND_Google", "Faces_easy", "crab"):
        for number in range(10):
            write(tmp_path / "caltech-101" / "101_ObjectCategories" / folder / f"{number}.jpg")
    assert load_task("caltech101", root=tmp_path, split="torchvision").class_names == ("crab",)

    write_benchmark(tmp_path, "fgvc_aircraft")
    official = load_task("fgvc_aircraft", root=tmp_path, split="torchvision")
    assert official == load_task("fgvc_aircraft", root=tmp_path)


def test_torchvision_splits_that_cannot_be(tmp_path):
    with pytest.raises(DataError, match="ucf101 has no split 'torchvision'; these have one: oxford_pets, food101"):
        load_task("ucf101", root=tmp_path, split="torchvision")
    with pytest.raises(DataError, match="dtd/images is missing.*; cbbt.download_data.'dtd', root. downloads it"):
        load_task("dtd", root=tmp_path, split="torchvision")
    write(tmp_path / "food-101" / "images" / "a.jpg")
    for split in ("train", "test"):
        write(tmp_path / "food-101" / "meta" / f"{split}.json", "[")
    with pytest.raises(DataError, match="food101: cannot read meta/train.json, meta/test.json in .*food-101"):
        load_task("food101", root=tmp_path, split="torchvision")
