"""ImageNet's classes and what WordNet 3.0 says of them: names, definitions, and what is above them.

`wordnet.tsv` has a row per synset: its number, the synsets directly above it, its names, its
definition. It holds ImageNet-1k's classes in their order and everything above them, taken from WordNet's
file of nouns by

    python -m cbbt.photo_clip.lexicon dict/data.noun > cbbt/photo_clip/wordnet.tsv

WordNet 3.0, Copyright 2006 by Princeton University; its licence stands at the head of the file.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import lazy_loader
import timm.data

open_clip = lazy_loader.load("open_clip")

FILE = Path(__file__).with_name("wordnet.tsv")
MOST_LEAVES = 300  # what lies above more classes than these is too general to be seen


@dataclass(frozen=True)
class Synset:
    """One meaning: names, the usual one first; a definition; and the synsets directly above, as far as the file has them."""

    names: tuple[str, ...]
    definition: str
    above: tuple[str, ...]


@dataclass(frozen=True)
class Anchor:
    """Something to be named: the synsets that stand for it, and the ImageNet classes (0 … 999) that they cover."""

    synsets: tuple[str, ...]
    classes: tuple[int, ...]


@lru_cache(maxsize=1)
def lexicon() -> dict[str, Synset]:
    """All synsets of the file; the names of ImageNet's classes begin with the one that open_clip's prompts use."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    usual = dict(zip((synset for synset, *_ in rows), open_clip.IMAGENET_CLASSNAMES))  # the classes stand first, in order
    table = {}
    for synset, above, names, definition in rows:
        names = ([usual[synset]] if synset in usual else []) + names.split("|")
        table[synset] = Synset(tuple(dict.fromkeys(names)), definition, tuple(above.split()))
    return table


@lru_cache(maxsize=1)
def anchors() -> tuple[Anchor, ...]:
    """The classes, and what lies above at most `MOST_LEAVES` of them; synsets that cover the same classes are one."""
    covered = defaultdict(set)
    for number, leaf in enumerate(list(lexicon())[: len(open_clip.IMAGENET_CLASSNAMES)]):
        for synset in _line(leaf):
            covered[synset].add(number)
    grouped = defaultdict(list)
    for synset in lexicon():
        if len(covered[synset]) <= MOST_LEAVES:
            grouped[tuple(sorted(covered[synset]))].append(synset)
    return tuple(Anchor(tuple(synsets), classes) for classes, synsets in grouped.items())


def _line(synset: str) -> set[str]:
    """A synset and everything above it."""
    return {synset}.union(*(_line(each) for each in lexicon()[synset].above))


def extract(nouns: Path) -> str:
    """The table of `FILE` from WordNet's data.noun, with its licence in front."""
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
    return "\n".join([*notice, *("\t".join([synset, *synsets[synset]]) for synset in needed)])


if __name__ == "__main__":
    print(extract(Path(sys.argv[1])))
