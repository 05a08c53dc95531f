"""Word search: templates, with a language model as the optimiser (Liu et al., CVPR 2024) or without.

A pool of templates, each a sentence with `{}` for the class name, is ranked by accuracy
on the shots. A proposer (`cbbt.methods.parts.proposers`) sees the three best and the three worst and
writes a new one, which joins the pool; the best is deployed. The box gets plain text: no
embeddings, no gradients. In `llm_search` the proposer is a language model, as published;
in `word_search` words are edited at random, without a model.

Released code: github.com/shihongl1998/LLM-as-a-blackbox-optimizer.

Repaired: its default prompt for the language model is undefined; here it is in
`cbbt.methods.parts.proposers`. It also scores every template on the test split and sorts
its results by that; here the test split is not seen.

Changed: it starts from 80 captions, which are not public, and ends after 10 proposals of a
model since retired; here the pool starts from `START` and the budget is a setting. Ties in
accuracy are ranked by cross-entropy here.

What a loss query scores: one template on all views of all shots.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from cbbt.adapters import IdentityAdapter
from cbbt.box.prompts import fill_template
from cbbt.checks import check_ranges, check_types, choose
from cbbt.learning.fitting import Classifier, Fitted
from cbbt.learning.search import search
from cbbt.methods.parts.proposers import PROPOSERS, well_formed
from cbbt.seeding import generator_for

# The initial pool, after the task's own template. Templates that a model cannot read are skipped at no cost.
START = (
    "{}", "{}.", "a {}.", "the {}.", "one {}.", "some {}.",
    "this is a {}.", "this is the {}.", "there is a {}.", "here is a {}.", "it is a {}.",
    "a photo of the {}.", "a photo of one {}.", "the photo of a {}.", "a photo: {}.",
    "a picture of a {}.", "a picture of the {}.", "an image of a {}.", "the image of the {}.",
    "there is a {} in the photo.", "there is a {} in the picture.", "a {} in the image.",
    "a close-up photo of a {}.", "a close-up photo of the {} surface.", "a {} texture.", "a {} pattern.",
    "a drawing of a {}.", "a sketch of the {}.", "a handwritten {}.", "a printed {}.",
    "a satellite photo of a {}.", "an aerial picture of the {}.", "a map of the {}.",
    "a dark photo of a {}.", "a bright photo of a {}.", "a blurry photo of a {}.", "a noisy picture of a {}.",
    "a black and white photo of a {}.", "a gray {} in the picture.", "a small {} seen from far away.",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """The search's constants, as published unless noted."""

    proposer: str = "words"  # a key of `cbbt.methods.parts.proposers.PROPOSERS`: seeded edits, offline
    endpoint: str = ""  # of "chat"
    model: str = ""  # of "chat"
    shown: int = 3  # best templates that a proposer sees, and as many of the worst
    tries: int = 15  # requests to the proposer until a template is new and readable
    # Templates scored, START among them; published: 80 and 10. Offline edits need more, being blind
    # (candidates in configs/search_peers.yaml).
    steps: int = 240

    def __post_init__(self):
        check_types(self)
        check_ranges(self, dict.fromkeys(("shown", "tries", "steps"), 1))
        choose("proposer", self.proposer, PROPOSERS)
        if self.proposer == ("words" if isinstance(self, ChatSettings) else "chat"):
            raise ValueError(f"word_search proposes words offline, llm_search by a language model, got {self.proposer!r}")
        PROPOSERS[self.proposer](self)  # missing settings are reported before the first query


@dataclass(frozen=True)
class ChatSettings(Settings):
    """`llm_search`: a language model proposes, as published."""

    proposer: str = "chat"


def fit(box, support, config, session) -> Fitted:
    if config.settings.proposer != "words":
        session = dataclasses.replace(session, save_every=0.0)  # a reply may cost money: save it at once
    return search(box, support, config, session, WordSearch(box, support, config), config.settings.steps)


class WordSearch:
    """The algorithm; each step scores one template (see `cbbt.learning.search.Searcher`)."""

    def __init__(self, box, support, config):
        self.box, self.support, self.seed, self.settings = box, support, config.seed, config.settings
        self.propose = PROPOSERS[self.settings.proposer](self.settings)
        raw, self.labels = support.whole()
        self.features = F.normalize(raw, dim=-1)
        self.scores: dict[str, tuple[float, float]] = {}  # template → accuracy in percent, cross-entropy
        self.refused: set[str] = set()  # by the model's tokenizer
        self.cost = {"class_prompts": len(support.class_names), "loss_queries": 1}

    def step(self, index: int, steps: int) -> dict:
        next((template for template in self.candidates(index) if self.score(template)), None)
        best = self.ranked()[0]
        accuracy, loss = self.scores[best]
        return {"train_loss": loss, "train_accuracy": accuracy, "templates": len(self.scores), "template": best}

    def candidates(self, index: int) -> Iterator[str]:
        """Templates for step `index`: first those of the initial pool, then the proposer's."""
        yield from (self.support.template, *START)
        ranked = [(template, self.scores[template][0]) for template in self.ranked()]
        shown, draw = self.settings.shown, generator_for(self.seed, "proposal", index)
        for _ in range(self.settings.tries):
            yield from self.propose(ranked[:shown], ranked[shown:][-shown:], draw)

    def score(self, template: str) -> bool:
        """Query the template's accuracy on the shots; False, at no cost, if it is already known or unusable."""
        own = template == self.support.template
        if template in self.scores or template in self.refused or not (own or well_formed(template)):
            return False
        try:
            text = self.box.encode_texts(fill_template(template, self.support.class_names))
        except ValueError:  # words that the model does not know, or too many
            if own:
                raise
            self.refused.add(template)
            return False
        loss = self.box.losses(text[None], self.features, self.labels).item()
        hits = (self.features @ text.T).argmax(dim=1) == self.labels
        self.scores[template] = 100.0 * hits.double().mean().item(), loss
        return True

    def ranked(self) -> list[str]:
        """The pool, the highest accuracy first; ties by lower cross-entropy, then the earlier."""
        return sorted(self.scores, key=lambda template: (-self.scores[template][0], self.scores[template][1]))

    def parameters(self) -> dict[str, torch.Tensor]:
        return {"template": as_bytes((self.ranked() or [self.support.template])[0])}

    def classifier(self, box, parameters) -> Classifier:
        template = as_text(parameters["template"])

        def retext(box, words):
            return box.encode_texts(fill_template(template, words.class_names))

        return Classifier(retext(box, self.support), IdentityAdapter(), box.logit_scale, retext=retext)

    def state(self) -> dict[str, torch.Tensor]:
        scores = torch.tensor(list(self.scores.values()), dtype=torch.float64)
        return {"templates": as_bytes(json.dumps(list(self.scores))), "scores": scores}

    def restore(self, state) -> None:
        templates = json.loads(as_text(state["templates"]))
        self.scores = {template: tuple(pair) for template, pair in zip(templates, state["scores"].tolist(), strict=True)}


def as_bytes(text: str) -> torch.Tensor:
    """UTF-8 of a text, uint8 (bytes,)."""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def as_text(codes: torch.Tensor) -> str:
    """The text of UTF-8 codes, uint8 (bytes,)."""
    return bytes(codes.tolist()).decode()
