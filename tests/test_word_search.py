"""The search over words, and its proposers: offline, one's own, and a chat endpoint on the loopback."""

import dataclasses
import json
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from cbbt.box.blackbox import BlackBox
from cbbt.box.ledger import Ledger
from cbbt.learning.fitting import Session
from cbbt.methods import word_search
from cbbt.methods.parts.proposers import PROPOSERS, Chat, ProposerError, edit_words, template_in, well_formed
from cbbt.runs.config import RunConfig
from tests.test_tuning import fit

GOOD, BAD = [("a photo of a {}.", 80.0), ("this is the {} here.", 70.0)], [("{}", 20.0)]
START = word_search.START[8:14]
SHORT = {"steps": 1 + len(START) + 12}
SECRET = "sk-of-nobody"


@pytest.fixture(autouse=True)
def short_start(monkeypatch):
    monkeypatch.setattr(word_search, "START", START)


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.asked.append(
            (self.path, dict(self.headers), json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        )
        status, content, *headers = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        if not isinstance(content, bytes):
            content = json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()
        self.send_response(status)
        for header in headers:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def endpoint(monkeypatch):
    """A server with `answers`, (status, reply or body, headers …), the last one for ever, `asked`, and `pauses` before it."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    server.pauses = []
    monkeypatch.setattr("cbbt.methods.parts.proposers.time.sleep", server.pauses.append)
    server.asked, server.answers = [], [(200, "a scan of a {}.")]
    server.base = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask(endpoint, generator, **settings):
    return Chat(endpoint.base, "some-model", **settings)(GOOD, BAD, generator)


def test_edits_are_templates_of_every_kind(generator):
    edited = [edit_words(GOOD, BAD, generator)[0] for _ in range(300)]
    assert all(template.count("{}") == 1 for template in edited) and len(set(edited)) > 100
    lengths = {len(template.split()) for template in edited}
    assert {4, 5, 6} <= lengths
    assert "a photo of a {} here." in edited  # crossed
    assert edit_words([("{}", 1.0)], [], generator)[0].count("{}") == 1  # nothing to remove or swap


@pytest.mark.parametrize("template, good", [
    ("a {}.", True), ("a photo", False), ("{} and {}", False), ("a\n{}", False),
    ("w " * 13 + "{}", True), ("w " * 14 + "{}", False),
])  # fmt: skip
def test_templates_are_checked(template, good):
    assert well_formed(template) is good


@pytest.mark.parametrize("reply", [
    "a scan of a {}.", '"a scan of a {}."', "1. a scan of a {}.", "- a  scan of a {}.",
    "Sure, here it is:\n\na scan of a {}.", "You could try `a scan of a {}.`, which is short.",
])  # fmt: skip
def test_a_template_is_found_in_a_reply(reply):
    assert template_in(reply) == "a scan of a {}."


def test_a_chat_is_told_the_scores_and_sends_the_key(endpoint, generator):
    assert ask(endpoint, generator) == ["a scan of a {}."]
    path, headers, body = endpoint.asked[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {SECRET}"
    assert body["model"] == "some-model" and "80.0 %  a photo of a {}." in body["messages"][0]["content"]


def test_without_a_key_none_is_sent(endpoint, generator, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    ask(endpoint, generator)
    assert "Authorization" not in endpoint.asked[0][1]


@pytest.mark.parametrize("reply", [
    '<think>Not "a blurry {}", then.</think>\na scan of a {}.', "<THINKING>a {}</THINKING>a scan of a {}.",
    "a blurry {}, no.\n</think>\na scan of a {}.", "a scan of a {}.\n<think>a blurry {}",
    [{"type": "thinking", "text": "a blurry {}"}, {"type": "text", "text": "a scan of a {}."}],
])  # fmt: skip
def test_thoughts_are_not_the_answer(endpoint, generator, reply):
    endpoint.answers = [(200, reply)]
    assert ask(endpoint, generator) == ["a scan of a {}."]


@pytest.mark.parametrize("value, seconds", [
    ("7", 7), ("900", 120), ("-3", 1), ("soon", 1), ("nan", 1), ("", 1),
    (timedelta(seconds=30), 29), (timedelta(seconds=-30), 1), (timedelta(days=1), 120),
])  # fmt: skip
def test_the_endpoints_pause_is_kept(endpoint, generator, value, seconds):
    if isinstance(value, timedelta):
        value = format_datetime(datetime.now(UTC) + value, usegmt=True)
    endpoint.answers.insert(0, (429, b"", ("Retry-After", value)))
    assert ask(endpoint, generator) == ["a scan of a {}."]
    assert endpoint.pauses[1] == pytest.approx(seconds, abs=1.5 if seconds == 29 else 0)


@pytest.mark.parametrize("first", [(200, "a scan"), (200, None), (200, ""), (200, b"no JSON"), (500, "a {}"), (429, "a {}")])
def test_a_chat_is_asked_again(endpoint, generator, first):
    endpoint.answers.insert(0, first)
    assert ask(endpoint, generator) == ["a scan of a {}."] and len(endpoint.asked) == 2


@pytest.mark.parametrize("answer, asked, message", [
    ((200, "no idea"), 3, "'some-model' gave no template in 3 replies; expected a line .* got at last 'no idea'"),
    ((200, None), 3, "gave no template in 3 replies; .* got at last ''"),
    ((200, b"no JSON"), 3, "in 3 tries: the answer is not a chat completion$"),
    ((200, b'{"error": {"message": "no credits"}}'), 3, "is not a chat completion: no credits"),
    ((503, ""), 3, "in 3 tries: HTTP 503"),
    ((400, b'{"error": {"message": "temperature does not\\nsupport 1.0"}}'), 1, "HTTP 400 .*: temperature does not support 1.0"),
    ((404, b'{"error": "model not found"}'), 1, "HTTP 404 Not Found: model not found"),
    ((422, b'{"detail": [{"msg": "field required"}]}'), 1, "field required"),
    ((401, f'{{"error": {{"message": "bad key {SECRET}"}}}}'.encode()), 1, r": bad key <OPENAI_API_KEY> .*KEY right\?"),
])  # fmt: skip
def test_a_chat_that_stays_bad_is_a_clear_error(endpoint, generator, answer, asked, message):
    endpoint.answers = [answer]
    with pytest.raises(ProposerError, match=message) as error:
        ask(endpoint, generator, tries=3)
    assert len(endpoint.asked) == asked and SECRET not in str(error.value)


def test_a_key_that_no_header_takes_is_named_and_not_shown(endpoint, generator, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{SECRET}\nsecond line")
    with pytest.raises(ProposerError, match="OPENAI_API_KEY holds characters that an HTTP header cannot hold") as error:
        ask(endpoint, generator)
    assert SECRET not in str(error.value) and not endpoint.asked


def test_an_answer_cut_short_is_asked_for_again(endpoint, generator):
    endpoint.answers.insert(0, (200, b'{"choices": [', ("Content-Length", "500")))
    assert ask(endpoint, generator) == ["a scan of a {}."]


def test_nobody_listening_is_a_clear_error(generator, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(ProposerError, match="in 2 tries: .*refused"):
        Chat("http://127.0.0.1:9/v1", "m", tries=2, pause=0)(GOOD, BAD, generator)


@pytest.mark.parametrize("options, message", [
    ({"proposer": "chat"}, "word_search proposes words offline, llm_search by a language model, got 'chat'"),
    ({"proposer": "gpt"}, "proposer='gpt' is unknown, choose from words, chat"),
    ({"tries": 0}, "tries must be at least 1"),
])  # fmt: skip
def test_wrong_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        RunConfig("digits", "word_search", options=options)


@pytest.mark.parametrize("options, message", [
    ({}, "needs endpoint="),
    ({"model": "m"}, "needs endpoint="),
    ({"model": "m", "endpoint": f"https://me:{SECRET}@host/v1"}, "needs endpoint="),
    ({"model": "m", "endpoint": "http://host:port/v1"}, "needs endpoint="),
    ({"model": "m", "endpoint": "http://[host/v1"}, "needs endpoint="),
    ({"endpoint": "https://host/v1"}, "needs model="),
])  # fmt: skip
def test_what_a_language_model_lacks_is_named_when_the_configuration_is_made(options, message):
    with pytest.raises(ValueError, match=message) as error:
        RunConfig("digits", "llm_search", options=options)
    assert SECRET not in str(error.value)


def test_the_search_improves_and_is_the_seeds(loaded, support):
    fitted, counts, monitoring = fit(loaded, support, "word_search", options=SHORT)
    first, last = fitted.history[0], fitted.history[-1]
    assert (last["train_accuracy"], -last["train_loss"]) > (first["train_accuracy"], -first["train_loss"])
    assert first["template"] == support.template != last["template"]
    accuracies = [row["train_accuracy"] for row in fitted.history]
    assert accuracies == sorted(accuracies) and last["templates"] > len(START)
    assert counts == {"class_prompts": 3 * last["templates"], "loss_queries": last["templates"], "images": 0}
    assert fitted.learned == 0 and fitted.last.accuracy(*support.whole()) == last["train_accuracy"]
    again, *_ = fit(loaded, support, "word_search", options=SHORT)
    other, *_ = fit(loaded, support, "word_search", options=SHORT, seed=2)
    assert again.history == fitted.history != other.history
    json.dumps(fitted.history, allow_nan=False)


@pytest.mark.parametrize("stop_after", [1, len(START) + 4])
def test_a_killed_search_goes_on(loaded, support, stop_after, tmp_path, killed_at):
    undisturbed = fit(loaded, support, "word_search", options=SHORT)
    with killed_at(stop_after):
        fit(loaded, support, "word_search", checkpoint=tmp_path / "c.safetensors", options=SHORT)
    resumed = fit(loaded, support, "word_search", checkpoint=tmp_path / "c.safetensors", options=SHORT)
    assert torch.equal(undisturbed[0].last.text, resumed[0].last.text)
    assert undisturbed[0].history == resumed[0].history and undisturbed[1:] == resumed[1:]


@pytest.mark.parametrize("budget, scored", [({"class_prompts": 20}, 6), ({"loss_queries": 5}, 5), ({"class_prompts": 3}, 1)])
def test_a_budget_ends_the_search(loaded, support, budget, scored):
    box = BlackBox(loaded, torch.device("cpu"), Ledger(budget))
    config = RunConfig("digits", "word_search")
    fitted = word_search.fit(box, support, config, Session(judge=box.with_ledger(Ledger())))
    assert box.ledger.counts["loss_queries"] == scored == len(fitted.history)
    assert box.ledger.counts["class_prompts"] == 3 * scored
    assert fitted.last.text.shape == (3, box.embed_dim)


def test_known_and_unreadable_proposals_are_free(loaded, support, monkeypatch):
    asked = []

    def mine(good, bad, generator):
        asked.append((good, bad))
        return ["a photo", support.template, "w " * 20 + "{}"]

    monkeypatch.setitem(PROPOSERS, "mine", lambda settings: mine)
    options = SHORT | {"proposer": "mine", "tries": 2}
    fitted, counts, _ = fit(loaded, support, "word_search", options=options)
    assert counts["loss_queries"] == len(START) + 1 == fitted.history[-1]["templates"]
    assert len(asked) == 2 * (SHORT["steps"] - len(START) - 1)
    good, bad = asked[0]
    assert len(good) == len(bad) == 3 and min(good, key=lambda t: t[1])[1] >= max(bad, key=lambda t: t[1])[1]


def test_a_chat_is_asked_nothing_twice_and_its_key_is_kept_nowhere(endpoint, loaded, support, tmp_path):
    """The endpoint fails for good after three proposals; the search goes on from there."""
    path = tmp_path / "checkpoint.safetensors"
    endpoint.answers = [(200, f"a {word} photo of a {{}}.") for word in ("red", "blue", "green")] + [(400, "")]
    options = SHORT | {"endpoint": endpoint.base, "model": "some-model"}
    arguments = {"checkpoint": path, "save_every": 60.0, "options": options}
    with pytest.raises(ProposerError, match="HTTP 400"):
        fit(loaded, support, "llm_search", **arguments)
    assert SECRET.encode() not in path.read_bytes() and len(endpoint.asked) == 4
    endpoint.answers = [(200, "a pink photo of a {}.")]
    fitted, counts, _ = fit(loaded, support, "llm_search", **arguments)
    pool = 1 + len(START) + 4
    assert counts["loss_queries"] == fitted.history[-1]["templates"] == pool
    tries = word_search.Settings.tries
    assert len(endpoint.asked) == 4 + 1 + (SHORT["steps"] - pool) * tries
    record = dataclasses.asdict(RunConfig("digits", "llm_search", options=options)), fitted.history
    assert SECRET not in json.dumps(record) and "some-model" in json.dumps(record)
