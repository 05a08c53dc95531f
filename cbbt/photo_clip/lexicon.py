"""ImageNet's classes in WordNet 3.0: names, definitions, hypernyms and hyponyms.

`wordnet.tsv` has a row per synset: its number, the synsets directly above it, its names, its
definition. It holds ImageNet-1k's classes in their order, then all synsets above them, then, without
definitions, the other synsets of ImageNet-21k below these; all extracted from WordNet's file of nouns by

    python -m cbbt.photo_clip.lexicon dict/data.noun > cbbt/photo_clip/wordnet.tsv

WordNet 3.0, Copyright 2006 by Princeton University; its licence is at the head of the file.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import lazy_loader

open_clip = lazy_loader.load("open_clip")
timm = lazy_loader.load("timm")

FILE = Path(__file__).with_name("wordnet.tsv")
MOST_CLASSES = 300  # synsets above more classes than this are too general to be visible
# Synsets below an anchor that are not classes are captioned as this anchor, unless it covers more than 60
# classes, or too few for their number: two classes cannot represent 3,768 flowers.
MOST_COVERED, MOST_PER_CLASS = 60, 50


@dataclass(frozen=True)
class Synset:
    """One meaning: names, the usual one first; a definition; and those synsets directly above that are in the file."""

    names: tuple[str, ...]
    definition: str
    above: tuple[str, ...]


@dataclass(frozen=True)
class Anchor:
    """A target of captions: its synsets, and the ImageNet classes (0 … 999) that they cover.

    kinds: synsets that are not classes and have this as the nearest anchor above them.
    """

    synsets: tuple[str, ...]
    classes: tuple[int, ...]
    kinds: tuple[str, ...]


@lru_cache(maxsize=1)
def lexicon() -> dict[str, Synset]:
    """All synsets of the file; the names of ImageNet's classes begin with the one that open_clip's prompts use."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    usual = dict(zip((synset for synset, *_ in rows), open_clip.IMAGENET_CLASSNAMES))  # the classes come first, in order
    table = {}
    for synset, above, names, definition in rows:
        names = ([usual[synset]] if synset in usual else []) + names.split("|")
        table[synset] = Synset(tuple(dict.fromkeys(names)), definition, tuple(above.split()))
    return table


@lru_cache(maxsize=1)
def anchors() -> tuple[Anchor, ...]:
    """The classes, and the synsets above at most `MOST_CLASSES` of them; synsets that cover the same classes are merged."""
    covered = defaultdict(set)
    for number, leaf in enumerate(list(lexicon())[: len(open_clip.IMAGENET_CLASSNAMES)]):
        for synset in _line(leaf):
            covered[synset].add(number)
    grouped, kinds = defaultdict(list), defaultdict(list)
    for synset in lexicon():
        if 0 < len(covered[synset]) <= MOST_CLASSES:
            grouped[tuple(sorted(covered[synset]))].append(synset)
    for synset in lexicon():
        if not covered[synset]:
            kinds[tuple(sorted(covered[_nearest(synset, covered)]))].append(synset)
    told = {
        classes: tuple(synsets)
        for classes, synsets in kinds.items()
        if len(classes) <= MOST_COVERED and len(synsets) <= MOST_PER_CLASS * len(classes)
    }
    return tuple(Anchor(tuple(synsets), classes, told.get(classes, ())) for classes, synsets in grouped.items())


def _line(synset: str) -> set[str]:
    """A synset and everything above it."""
    return {synset}.union(*(_line(each) for each in lexicon()[synset].above))


def _nearest(synset: str, covered) -> str:
    """The first synset above that covers classes, following the first hypernym."""
    while not covered[synset]:
        synset = lexicon()[synset].above[0]
    return synset


def extract(nouns: Path) -> str:
    """The table `FILE`, from WordNet's data.noun, with its licence at the head."""
    notice, synsets = [], {}
    for line in nouns.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            notice.append("#" + re.sub(r"^ +\d+", "", line).rstrip())
            continue
        fields, definition = line.split("|", 1)
        fields = fields.split()
        count = int(fields[3], 16)
        names = [name.replace("_", " ") for name in fields[4 : 4 + 2 * count : 2]]
        pointers = fields[5 + 2 * count :]
        above = [f"n{target}" for kind, target in zip(pointers[::4], pointers[1::4]) if kind in ("@", "@i")]
        synsets[f"n{fields[0]}"] = (" ".join(above), "|".join(names), re.split(r'; *"', definition)[0].strip())
    needed = timm.data.ImageNetInfo("imagenet-1k").label_names()
    for synset in needed:  # grows while it is read
        needed += [above for above in synsets[synset][0].split() if above not in needed]
    rows = {synset: synsets[synset] for synset in needed}
    below = [synset for synset in timm.data.ImageNetInfo("imagenet-22k").label_names() if synset in synsets]
    for synset in below:
        above = synsets[synset][0].split()
        below += [each for each in above if each not in rows and each not in below]
        rows.setdefault(synset, (synsets[synset][0], synsets[synset][1], ""))
    return "\n".join([*notice, *("\t".join([synset, *row]) for synset, row in rows.items())])


if __name__ == "__main__":
    print(extract(Path(sys.argv[1])))
