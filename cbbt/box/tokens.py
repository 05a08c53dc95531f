"""From texts to token ids, with no silent truncation.

open_clip's tokenizers cut off what does not fit into the text tower, so that two long
sentences may become equal; here they are refused. A tokenizer made for English splits words
of other scripts into letters or bytes, which a text tower trained on English has hardly ever
seen: a warning names such words once, and those that a small model's vocabulary lacks.

A name and the full stop after it are tokenized together, as in CoOp's and CBBT's released
code: CLIP's tokenizer has a token for ".." that is not two of ".", so a name that ends in
"St." gives another prompt than its own tokens followed by that of ".". Only where a context
stands between them are they tokenized separately.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from string import punctuation
from textwrap import shorten

import torch

from cbbt.box.prompts import readable, unmarked


class Tokens:
    """Reads class names and sentences for one text tower.

    tokenizer: the model's own; `encode` gives the ids of a text without start and end of text.
    length: positions that the tower has for tokens, start and end of text included.
    Raises ValueError for a tokenizer without a start-of-text and an end-of-text token.
    """

    def __init__(self, tokenizer, length: int):
        if not all(hasattr(tokenizer, name) for name in ("encode", "sot_token_id", "eot_token_id")):
            raise ValueError(f"{type(tokenizer).__name__} has no start-of-text and end-of-text tokens, which prompts need")
        self.tokenizer, self.length = tokenizer, length
        self.start, self.end = tokenizer.sot_token_id, tokenizer.eot_token_id
        self.stop = tokenizer.encode(".")
        # Class name → its ids, and those with its full stop; cached, as every step has the same names.
        self._known: dict[str, tuple[list[int], list[int]]] = {}
        self._met: set[str] = set()  # words already checked

    def ids(self, text: str) -> list[int]:
        """All ids of a text, without start and end of text. Raises ValueError for a text that holds either."""
        ids = self.tokenizer.encode(unmarked(text))
        if self.start in ids or self.end in ids:
            raise ValueError(f"{text!r} holds a start- or end-of-text token")
        return ids

    def stop_behind(self, position: str) -> list[int]:
        """Ids of the full stop after a context; none if the class name comes last and includes it."""
        return [] if position == "end" else self.stop

    def names(self, class_names, context_length: int, position: str) -> list[list[int]]:
        """Ids of class names for prompts with `context_length` context vectors; at the position "end" with the full stop.

        Raises ValueError for a name without a token or with too many.
        """
        if not self._known.keys() >= set(class_names):
            self._known |= {name: (self.ids(readable(name)), self.ids(readable(name) + ".")) for name in class_names}
            self._warn_of_strange_words([*map(readable, class_names)])
        room, closed = self.length - context_length - 2, position == "end"
        for name in class_names:
            alone = self._known[name][0]
            count = len(self._known[name][closed] + self.stop_behind(position))
            if count > room:
                raise ValueError(
                    f"class name {name!r} has {count} tokens with its full stop, but with {context_length} context vectors "
                    f"only {max(room, 0)} fit into the text tower's {self.length} positions"
                )
            if not alone:
                raise ValueError(f"class name {name!r} has no token")
        return [self._known[name][closed] for name in class_names]

    def sentences(self, texts: list[str]) -> torch.Tensor:
        """Ids of whole sentences, int64 (n, length). Raises ValueError for one that is too long."""
        for text in texts:
            count = len(self.ids(text))
            if count > self.length - 2:
                raise ValueError(
                    f"sentence {shorten(text, 100)!r} has {count} tokens, "
                    f"but only {self.length - 2} fit into the text tower's {self.length} positions"
                )
        self._warn_of_strange_words(texts)
        return self.tokenizer(texts)

    def _warn_of_strange_words(self, texts: list[str]) -> None:
        words = {word.strip(punctuation) for text in texts if not text.isascii() for word in text.split()} - self._met
        if spelled := sorted(filter(self._is_spelled, words)):
            warnings.warn(
                f"the tokenizer splits {_first(spelled)} into letters or bytes, "
                "which a model trained on English does not understand: expect chance accuracy, or give class_names in English",
                stacklevel=5,
            )
        if hasattr(self.tokenizer, "knows"):
            met = {word.lower() for text in texts for word in re.findall(r"[^\W_]+", text)} - self._met
            if unknown := sorted(word for word in met if not self.tokenizer.knows(word)):
                warnings.warn(f"the model never met {_first(unknown)}: expect low accuracy for such names", stacklevel=5)
            words |= met
        self._met |= words

    def _is_spelled(self, word: str) -> bool:
        """Whether most tokens of a word are single letters beyond ASCII, or bytes of them."""
        pieces = [self.tokenizer.decode([token]).strip() for token in self.tokenizer.encode(word)]
        letters = [piece for piece in pieces if "\ufffd" in piece or len(piece) == 1 and _is_foreign_letter(piece)]
        return 2 * len(letters) > len(pieces)


def _first(words: list[str]) -> str:
    """The first five, and how many more."""
    more = f" and {len(words) - 5} more" if len(words) > 5 else ""
    return f"{', '.join(map(repr, words[:5]))}{more}"


def _is_foreign_letter(character: str) -> bool:
    return not character.isascii() and unicodedata.category(character)[0] in "LM"  # letters and their marks
