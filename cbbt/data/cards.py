"""The eleven benchmarks of CoOp as one table: their folders, sizes and templates.

Folders, image roots, split files, sizes and templates are those of CoOp (Zhou et
al., IJCV 2022; github.com/KaiyangZhou/CoOp, DATASETS.md, datasets/ and
trainers/zsclip.py). The epochs are those of CBBT's 16-shot runs (Guo et al.,
Findings of EMNLP 2023; github.com/guozix/cbbt, launch scripts).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

EMBEDDED = ("digits", "landcover", "textures", "shapes")  # tasks that ship with the kit and need no card

SPLIT_SOURCES = (
    "CoOp's DATASETS.md (github.com/KaiyangZhou/CoOp) or the splits/ folder of github.com/linzhiqiu/cross_modal_adaptation"
)


@dataclass(frozen=True)
class Card:
    """The fixed facts of one benchmark.

    `folder` is relative to the data root and `images` to the folder; paths in a
    split are relative to `images`. `lists` are the files in the folder that
    say which image belongs to which class and split. `train`, `val`, `test` are
    numbers of images; `template` has `{}` for the class name; `epochs` is CBBT's.
    """

    name: str
    folder: str
    images: str
    lists: tuple[str, ...]
    classes: int
    train: int
    val: int
    test: int
    template: str
    epochs: int
    origin: str  # of the split
    paper: str
    by_hand: str  # how to get the images
    licence: str = ""  # of the images, if they have one

    def image_root(self, root) -> Path:
        return Path(root) / self.folder / self.images

    def layout(self) -> str:
        """The expected files in the data root, in words."""
        return f"{self.folder}/ with " + ", ".join((*self.lists, f"{self.images or 'cars_train, cars_test'}/"))


_OXFORD = "robots.ox.ac.uk/~vgg/data"
_FGVC_LISTS = ("variants.txt", *(f"images_variant_{split}.txt" for split in ("train", "val", "test")))

CARDS = {
    card.name: card
    for card in (
        Card(
            "imagenet", "imagenet", "images", ("classnames.txt",), 1000, 1281167, 0, 50000,
            "a photo of a {}.", 12, "official; its validation images are the test split, none is left for validation",
            "Deng et al., CVPR 2009",
            "register at image-net.org; extract to images/train/<wnid>/ and images/val/<wnid>/; "
            "classnames.txt (lines of wnid and name) is linked in CoOp's DATASETS.md",
        ),
        Card(
            "caltech101", "caltech-101", "101_ObjectCategories", ("split_zhou_Caltech101.json",), 100, 4128, 1649, 2465,
            "a photo of a {}.", 150, "drawn by CoOp, 50/20/30", "Fei-Fei et al., CVPR Workshops 2004",
            "get caltech-101.zip from data.caltech.edu/records/mzrjq-6wc02 and extract the "
            "101_ObjectCategories.tar.gz in it; the older address on vision.caltech.edu is gone",
            "CC BY 4.0",
        ),
        Card(
            "oxford_pets", "oxford_pets", "images", ("split_zhou_OxfordPets.json",), 37, 2944, 736, 3669,
            "a photo of a {}, a type of pet.", 150, "official test; the rest 80/20 by CoOp", "Parkhi et al., CVPR 2012",
            f"get images.tar.gz and annotations.tar.gz from {_OXFORD}/pets",
        ),
        Card(
            "stanford_cars", "stanford_cars", "", ("split_zhou_StanfordCars.json",), 196, 6509, 1635, 8041,
            "a photo of a {}.", 80, "official test; the rest 80/20 by CoOp", "Krause et al., ICCV Workshops 2013",
            "the original address (ai.stanford.edu/~jkrause) no longer answers and torchvision refuses to download; "
            "get cars_train/ and cars_test/ from a mirror or from a colleague, file names unchanged",
        ),
        Card(
            "oxford_flowers", "oxford_flowers", "jpg", ("split_zhou_OxfordFlowers.json",), 102, 4093, 1633, 2463,
            "a photo of a {}, a type of flower.", 150, "drawn by CoOp, 50/20/30; not the official one",
            "Nilsback and Zisserman, ICVGIP 2008",
            f"get 102flowers.tgz, imagelabels.mat and setid.mat from {_OXFORD}/flowers/102",
        ),
        Card(
            "food101", "food-101", "images", ("split_zhou_Food101.json",), 101, 50500, 20200, 30300,
            "a photo of {}, a type of food.", 150, "drawn by CoOp, 50/20/30; not the official one",
            "Bossard et al., ECCV 2014", "get food-101.tar.gz (5 GB) from data.vision.ee.ethz.ch/cvl",
        ),
        Card(
            "fgvc_aircraft", "fgvc_aircraft", "images", _FGVC_LISTS, 100, 3334, 3333, 3333,
            "a photo of a {}, a type of aircraft.", 150, "official", "Maji et al., arXiv 1306.5151",
            f"get fgvc-aircraft-2013b.tar.gz from {_OXFORD}/fgvc-aircraft/archives; its data/ becomes fgvc_aircraft/",
        ),
        Card(
            "sun397", "sun397", "SUN397", ("split_zhou_SUN397.json",), 397, 15880, 3970, 19850,
            "a photo of a {}.", 40, "official Training_01 and Testing_01; the former 80/20 by CoOp",
            "Xiao et al., CVPR 2010",
            "the addresses on vision.princeton.edu (SUN397.tar.gz, 37 GB, and Partitions.zip) answer only in part or "
            "not at all; get SUN397.tar.gz from a mirror; Partitions.zip is not needed with the split file",
        ),
        Card(
            "dtd", "dtd", "images", ("split_zhou_DescribableTextures.json",), 47, 2820, 1128, 1692,
            "{} texture.", 150, "drawn by CoOp, 50/20/30", "Cimpoi et al., CVPR 2014",
            f"get dtd-r1.0.1.tar.gz from {_OXFORD}/dtd",
        ),
        Card(
            "eurosat", "eurosat", "2750", ("split_zhou_EuroSAT.json",), 10, 13500, 5400, 8100,
            "a centered satellite photo of {}.", 150, "drawn by CoOp, 50/20/30", "Helber et al., JSTARS 2019",
            "get EuroSAT.zip (the RGB version, folder 2750) as linked from github.com/phelber/EuroSAT",
            "MIT licence",
        ),
        Card(
            "ucf101", "ucf101", "UCF-101-midframes", ("split_zhou_UCF101.json",), 101, 7639, 1898, 3783,
            "a photo of a person doing {}.", 150, "official trainlist01 and testlist01; the former 80/20 by CoOp",
            "Soomro et al., arXiv 1212.0402",
            "get UCF-101-midframes.zip (the middle frame of each video) as linked in CoOp's DATASETS.md",
        ),
    )
}  # fmt: skip
