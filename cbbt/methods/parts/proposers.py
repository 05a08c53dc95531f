"""Proposers of templates for word search (`cbbt.methods.word_search`).

A proposer is a function of good and bad templates, each with its accuracy on the shots
in percent, and a generator for its draws; it returns new templates with `{}` for the
class name. `PROPOSERS` finds one by name; to use your own:

    PROPOSERS["mine"] = lambda settings: my_function
    cbbt.RunConfig("digits", "word_search", options={"proposer": "mine"})
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from textwrap import shorten
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import torch

Scored = list[tuple[str, float]]  # templates with their accuracies, the best first
Proposer = Callable[[Scored, Scored, torch.Generator], list[str]]

FEWER_WORDS_THAN = 15  # in a template, as published
KEY = "OPENAI_API_KEY"  # environment variable
LONGEST_WAIT = 120.0  # seconds between two tries, even if the endpoint's Retry-After is longer

# For the offline proposer: words of captions that fit any picture.
WORDS = """
a an the this that one some my your here there is it in on of with from and as for very
photo photograph picture image snapshot shot close-up view drawing sketch painting print
illustration rendering symbol sign icon map pattern texture surface scene object example type
kind centered cropped close small large big single clean clear simple plain old new good bad
typical real handwritten printed drawn painted aerial satellite black white gray red blue green
brown yellow dark bright blurry noisy faded pixelated sharp grainy low-resolution
""".split()


class ProposerError(RuntimeError):
    """A proposer could not be reached, or its answers held no template."""


def well_formed(template: str) -> bool:
    """Whether `template` is one printable line of fewer than 15 words with `{}` exactly once."""
    return template.count("{}") == 1 and template.isprintable() and len(template.split()) < FEWER_WORDS_THAN


def edit_words(good: Scored, bad: Scored, generator: torch.Generator) -> list[str]:
    """Offline: one good template with a word inserted, removed or swapped, or two good ones crossed.

    Crossing takes the part before the class name from one and the part after it from
    the other. The bad templates are not used.
    """

    def pick(choices):
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    words, other = pieces(pick(good)[0]), pieces(pick(good)[0])
    places = [place for place, word in enumerate(words) if word != "{}"]
    edit = pick(("insert", "remove", "swap", "cross") if places else ("insert", "cross"))
    if edit == "insert":
        words.insert(pick(range(len(words) + 1)), pick(WORDS))
    elif edit == "remove":
        del words[pick(places)]
    elif edit == "swap":
        words[pick(places)] = pick(WORDS)
    else:
        words = words[: words.index("{}")] + other[other.index("{}") :]
    return [re.sub(r"\s+([.,:;!?])", r"\1", " ".join(words))]


def pieces(template: str) -> list[str]:
    """Words, marks, and `{}` of a template."""
    return re.findall(r"\{\}|[\w'-]+|[^\w\s{}]+", template)


@dataclass(frozen=True)
class Chat:
    """A proposer behind any endpoint with OpenAI's chat completions API.

    endpoint: its base, such as "https://api.openai.com/v1". model: its name there.
    The key, if one is needed, is read from the environment variable OPENAI_API_KEY for
    every request and not stored. timeout: of a request, in seconds. tries: for a request
    that fails temporarily, and for replies without a template. pause: seconds before the
    second try, doubled before each further one; longer if the endpoint says so
    (Retry-After), up to two minutes.

    Raises ValueError for an invalid endpoint or model; a request raises ProposerError.
    """

    endpoint: str
    model: str
    temperature: float = 1.0  # published
    timeout: float = 60.0
    tries: int = 5
    pause: float = 1.0

    def __post_init__(self):
        try:
            parts = urlsplit(self.endpoint)
            possible = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # for invalid brackets or ports
            possible = False
        if not possible or "@" in parts.netloc or parts.query:
            # Not repeated in the message: it may hold a secret, and it would end up in the record.
            raise ValueError(
                "proposer 'chat' needs endpoint='https://…/v1', without user, password or query: "
                f"put the key into the environment variable {KEY}"
            )
        if not self.model:
            raise ValueError("proposer 'chat' needs model=…, a name that its endpoint knows")
        if self.tries < 1:
            raise ValueError(f"proposer 'chat' needs tries ≥ 1, got {self.tries}")

    def __call__(self, good: Scored, bad: Scored, generator: torch.Generator) -> list[str]:
        question = wording(good, bad)
        for _ in range(self.tries):
            reply = self.ask(question)
            template = template_in(reply)
            if template is not None:
                return [template]
        raise ProposerError(
            f"model {self.model!r} gave no template in {self.tries} replies; expected a line of fewer than "
            f"{FEWER_WORDS_THAN} words with {{}} once, got at last {reply[:80]!r}"
        )

    def ask(self, question: str) -> str:
        """The model's reply; retried, after a pause, while the endpoint fails or is busy."""
        url = self.endpoint.rstrip("/") + "/chat/completions"
        messages = [{"role": "user", "content": question}]
        body = json.dumps({"model": self.model, "temperature": self.temperature, "messages": messages}).encode()
        key, wait = os.environ.get(KEY, "").strip(), 0.0
        if not (key.isascii() and key.isprintable()):
            raise ProposerError(f"the environment variable {KEY} holds characters that an HTTP header cannot hold")
        for number in range(self.tries):
            time.sleep(max(self.pause * 2 ** (number - 1), wait) if number else 0)
            request, answer, wait = Request(url, body, {"Content-Type": "application/json"}), b"", 0.0
            if key:
                request.add_unredirected_header("Authorization", f"Bearer {key}")  # to this host alone
            try:
                response, answer = post(request, self.timeout)
                if response.status < 300:
                    return answer_in(json.loads(answer)["choices"][0]["message"]["content"])
                trouble = f"HTTP {response.status} {response.reason}" + complaint_in(answer)
                if response.status < 500 and response.status not in (408, 409, 429):
                    trouble += f" (is {KEY} right?)" if response.status in (401, 403) else ""
                    break  # a retry would change nothing
                wait = retry_after(response.headers)
            except (OSError, HTTPException) as error:
                trouble = str(getattr(error, "reason", error))
            except (ValueError, LookupError, TypeError, AttributeError):
                trouble = "the answer is not a chat completion" + complaint_in(answer)
        trouble = trouble.replace(key, f"<{KEY}>") if key else trouble  # some endpoints echo it
        raise ProposerError(f"{url} did not answer in {number + 1} tries: {trouble}")


def post(request: Request, timeout: float):
    """The endpoint's response, whatever its status, and its body."""
    try:
        response = urlopen(request, timeout=timeout)
    except HTTPError as error:
        response = error
    with response:
        return response, response.read()


def answer_in(content) -> str:
    """A reply's text without the model's reasoning; content may be null, or a list of parts of which some are text."""
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content if part.get("type") == "text")
    text = re.sub(r"(?is)<(think|thinking)>.*?</\1>", "", content or "")
    # If the prompt opened the reasoning, the reply has only its end tag; if the reply was truncated, only its start tag.
    return re.split(r"(?i)<think(?:ing)?>", re.split(r"(?i)</think(?:ing)?>", text)[-1])[0].strip()


def complaint_in(body: bytes) -> str:
    """The message in an error's body, as ": …" on one line, or nothing."""
    try:
        error = json.loads(body)
        error = error.get("error") or error
        message = error if isinstance(error, str) else error.get("message") or error.get("detail") or ""
    except (ValueError, AttributeError):
        return ""
    return f": {shorten(str(message), 300)}" if message else ""


def retry_after(headers) -> float:
    """Seconds to wait by Retry-After, a number or a date; 0 without it, and at most two minutes."""
    value = (headers.get("Retry-After") or "").strip()
    try:
        seconds = float(value) if value.isdecimal() else parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT)


def wording(good: Scored, bad: Scored) -> str:
    """The prompt for the language model."""

    def listed(templates: Scored) -> str:
        return "\n".join(f"{accuracy:.1f} %  {template}" for template, accuracy in templates)

    return (
        "A model compares a picture with one sentence per class and picks the class whose sentence fits best. "
        "The sentences come from a template in which {} stands for the class name. "
        "Measured on a few labelled pictures, these templates do well:\n"
        f"{listed(good)}\n\nand these do badly:\n{listed(bad)}\n\n"
        "Work out what sets the two groups apart, then write one new template that should do better than all of them. "
        f"It has fewer than {FEWER_WORDS_THAN} words and holds {{}} exactly once. "
        "Reply with the template alone, on one line."
    )


def template_in(reply: str) -> str | None:
    """The first template in a reply, without numbering and quotation marks; None if there is none."""
    for line in re.findall(r'["“`]([^"”`\n]*\{\}[^"”`\n]*)["”`]', reply) + reply.splitlines():
        template = " ".join(re.sub(r"^\s*(?:\d+[.)]|[-*•])\s+", "", line).split()).strip("\"'“”`*")
        if well_formed(template):
            return template
    return None


# Name → function of the method's settings that returns the proposer.
PROPOSERS: dict[str, Callable[[object], Proposer]] = {
    "words": lambda settings: edit_words,
    "chat": lambda settings: Chat(settings.endpoint, settings.model),
}
