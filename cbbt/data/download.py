"""Download of benchmark images, where still available, and CoOp's splits into the user's data folder.

Addresses and MD5 sums of the archives are those of torchvision 0.29. CoOp's
`split_zhou_*.json` come from github.com/linzhiqiu/cross_modal_adaptation (MIT, Lin et
al., CVPR 2023); one that is already beside the images is kept as it is.

An archive is downloaded under a temporary name and renamed when its size and sum are
right; it is unpacked in a hidden folder and moved into place last, so an images'
folder that exists is complete. A call after a failure resumes where the last one
stopped.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from cbbt.provenance import versions

from .cards import CARDS, SPLIT_SOURCES, Card
from .task import DataError, located

BLOCK = 1 << 20  # bytes
TIMEOUT = 60  # seconds without an answer
PASSING = (408, 425, 429)  # temporary refusals: a later call may succeed
DISK = (errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.ENOSPC, errno.EROFS)


@dataclass(frozen=True)
class Source:
    """Where a benchmark comes from, each file as (address, MD5 or None).

    `files` hold the images; their folder `inner` becomes the benchmark's. `lists` are copied into it unchanged.
    """

    files: tuple[tuple[str, str | None], ...]
    inner: str = "."
    lists: tuple[tuple[str, str | None], ...] = ()


_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
_SPLITS = "https://raw.githubusercontent.com/linzhiqiu/cross_modal_adaptation/ac9077ee4e422f768c9b9109551468605e33ec9a/splits"


def _split(name: str, md5: str | None) -> tuple[tuple[str, str | None]]:
    return ((f"{_SPLITS}/split_zhou_{name}.json", md5),)


SOURCES = {
    "caltech101": Source(
        (("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip", "3138e1922a9193bfa496528edbbc45d0"),),
        "caltech-101",
        _split("Caltech101", "385cabeb25ebeebaa36167d7028ebc52"),
    ),
    "oxford_pets": Source(
        (
            (f"{_OXFORD}/pets/data/images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
            (f"{_OXFORD}/pets/data/annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f"),
        ),
        lists=_split("OxfordPets", "fadad0caba06c4d0d2baf192015f50b4"),
    ),
    "stanford_cars": Source((), lists=_split("StanfordCars", "91255fab2e15280e6d9d9d24cc87efdb")),
    "oxford_flowers": Source(
        (
            (f"{_OXFORD}/flowers/102/102flowers.tgz", "52808999861908f626f3c1f4e79d11fa"),
            (f"{_OXFORD}/flowers/102/imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
            (f"{_OXFORD}/flowers/102/setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c"),
        ),
        lists=_split("OxfordFlowers", "cfeaf0508c398ca993bf48ca5f034569"),
    ),
    "food101": Source(
        (("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz", "85eeb15f3717b99a5da872d97d918f87"),),
        "food-101",
        _split("Food101", None),
    ),
    "fgvc_aircraft": Source(
        ((f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz", None),), "fgvc-aircraft-2013b/data"
    ),
    "sun397": Source((), lists=_split("SUN397", None)),
    "dtd": Source(
        ((f"{_OXFORD}/dtd/download/dtd-r1.0.1.tar.gz", "fff73e5086ae6bdbea199a49dfb8a4c1"),),
        "dtd",
        _split("DescribableTextures", "02ff57f1bbd002a43320737a3ecbc113"),
    ),
    "eurosat": Source(
        (
            (
                "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
                "c8fa014336c82ac7804f0398fcb19387",
            ),
        ),
        lists=_split("EuroSAT", "989e1eca757dec43cfcee28faf6b28fc"),
    ),
    "ucf101": Source((), lists=_split("UCF101", "3a70ae2e43036a21111f3692a43fc839")),
}


def download_data(name: str, root, *, source: Source | None = None, progress: bool = True) -> Path:
    """Download what benchmark `name` lacks in `root`, images and CoOp's split; returns its folder, in CoOp's layout.

    An existing images' folder or split file is left unchanged. `source` replaces the
    addresses of `SOURCES`, for a mirror. Raises `DataError` for images that cannot be
    downloaded, a failed or damaged download, a root that cannot be written or a full
    disk; the message says what to do by hand.
    """
    if name not in tuple(CARDS):
        raise DataError(f"no benchmark is called {name!r}: choose from {', '.join(CARDS)}")
    card, source = CARDS[name], source or SOURCES.get(name, Source(()))
    root = located(root, "root")
    folder = root / card.folder
    try:
        if not card.image_root(root).is_dir():
            _fetch_images(card, source, folder, progress)
        for address, md5 in source.lists:
            by_hand = f"put it into {folder}, from {SPLIT_SOURCES}"
            _fetch(card, address, md5, folder, progress, by_hand)
    except OSError as error:
        raise DataError(
            f"{name}: cannot write to {folder}: {error}. Make room or choose another root, then call again; "
            "finished downloads are kept."
        ) from error
    return folder


def _fetch_images(card: Card, source: Source, folder: Path, progress: bool) -> None:
    if not source.files:
        others = ", ".join(name for name, other in SOURCES.items() if other.files)
        raise DataError(f"{card.name} cannot be downloaded ({others} can). By hand: {card.by_hand}.")
    staging = folder / ".download"  # inside, so that moving never crosses file systems
    staging.mkdir(parents=True, exist_ok=True)
    archives = [_fetch(card, address, md5, staging, progress, card.by_hand) for address, md5 in source.files]
    _unpack(card, archives, source, staging / "unpacked")
    _move_in(card, staging / "unpacked" / source.inner, folder)
    shutil.rmtree(staging)


def _fetch(card: Card, address: str, md5: str | None, place: Path, progress: bool, by_hand: str) -> Path:
    """The file of `address` in `place`, complete and checked; an existing file is kept, a partial one resumed."""
    target = place / address.rpartition("/")[2]
    if target.is_file():
        return target
    part = target.with_name(target.name + ".part")
    try:
        _receive(address, part, progress)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if getattr(error, "errno", None) in DISK:
            raise
        final = isinstance(error, ValueError) or 400 <= getattr(error, "code", 0) < 500 and error.code not in PASSING
        advice = "By hand" if final else "Call again to resume, or by hand"
        raise DataError(f"{card.name}: cannot download {address}: {error}. {advice}: {by_hand}.") from error
    got = _md5(part)
    if md5 is not None and got != md5:
        part.unlink()
        raise DataError(
            f"{card.name}: {address} is not the expected file: MD5 {got} instead of {md5}; it was deleted. "
            f"Call again, or by hand: {by_hand}."
        )
    return part.rename(target)


def _receive(address: str, part: Path, progress: bool) -> None:
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": f"cbbt/{versions()['cbbt']}"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(address, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # the part is as long as the file: start again
            raise
        part.unlink()
        return _receive(address, part, progress)
    with answer:
        have = have if answer.status == 206 else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(desc=part.stem, total=total, initial=have, unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            while block := answer.read(BLOCK):
                file.write(block)
                bar.update(len(block))
    if total is not None and part.stat().st_size != total:
        raise OSError(f"the connection ended after {part.stat().st_size} of {total} bytes")


def _md5(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def _unpack(card: Card, archives: list[Path], source: Source, place: Path) -> None:
    """Unpack into an empty `place`; archives inside the wanted folder are unpacked there."""
    if place.exists():
        shutil.rmtree(place)
    place.mkdir()
    try:
        for archive in archives:
            _extract(archive, place)
        for archive in sorted((place / source.inner).glob("*.tar.gz")):
            _extract(archive, place / source.inner)
            archive.unlink()
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        for archive in archives:
            archive.unlink()
        raise DataError(
            f"{card.name}: an archive cannot be unpacked ({error}); the download was deleted. "
            f"Call again, or by hand: {card.by_hand}."
        ) from error


def _extract(archive: Path, place: Path) -> None:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as file:
            for name in file.namelist():  # zipfile itself would silently rename such a member
                if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
                    raise zipfile.BadZipFile(f"the member {name!r} leads outside")
            file.extractall(place)
    elif archive.suffix in (".gz", ".tgz"):
        with tarfile.open(archive) as file:
            file.extractall(place, filter="data")
    else:
        shutil.copy(archive, place)


def _move_in(card: Card, unpacked: Path, folder: Path) -> None:
    """Move what is missing into the benchmark's folder, the images last."""
    images = unpacked / card.images
    if not images.is_dir():
        raise DataError(f"{card.name}: the archives hold no folder {card.images}; by hand: {card.by_hand}.")
    for entry in sorted(unpacked.iterdir(), key=lambda entry: entry == images):
        if not (folder / entry.name).exists():
            entry.rename(folder / entry.name)
