"""A served box and its client, on loopback: the same answers, who may ask, what it costs, and what is refused."""

import base64
import io
import json
import pickle
import socket
import threading
import time

import httpx
import pytest
import torch
import zstandard
from PIL import Image
from safetensors.torch import save

import cbbt
from cbbt.box.access import ServiceRefused, granted
from cbbt.box.blackbox import load_black_box, load_white_box
from cbbt.box.ledger import GRAINS, BudgetExceeded, Ledger
from cbbt.box.remote import connection as connections
from cbbt.box.remote.connection import BoxChanged, BoxUnavailable, name_of
from cbbt.box.remote.served import RemoteBox
from cbbt.box.server.accounts import Account, ServerLedger, read_keys
from cbbt.box.server.serve import serve
from cbbt.box.server.worker import Busy, Question, Worker
from cbbt.box.wire import MEDIA_TYPE, WireError, compressed, expanded, pack, unpack

from .served import free_port, serving
from .test_blackbox import reachable

NAMES = ["red circle", "seven", "the letter a"]
NOTHING = dict.fromkeys(GRAINS, 0)
ANYONE = Account("anyone", {})
KEY = "a key of the tests"


@pytest.fixture(scope="module")
def local():
    return load_black_box("mini", device="cpu")


@pytest.fixture
def served(local):
    """A client's box of "mini" with all grants, and the server's ledger."""
    with serving(local) as (address, ledger):
        yield load_black_box(address, device="cpu"), ledger


def contexts(box, sets=3, length=2, classes=None):
    shape = (sets, length, box.context_dim) if classes is None else (sets, classes, length, box.context_dim)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def pixels(box, count=5):
    return torch.randn(count, 3, box.image_size, box.image_size, generator=torch.Generator().manual_seed(4))


QUESTIONS = {
    "images": lambda box: box.encode_images(pixels(box)),
    "raw images": lambda box: box.encode_images(pixels(box), normalize=False),
    "prompts": lambda box: box.encode_prompts(contexts(box), NAMES),
    "prompts in front": lambda box: box.encode_prompts(contexts(box), NAMES, "front"),
    "contexts of classes": lambda box: box.encode_prompts(contexts(box, classes=len(NAMES)), NAMES),
    "texts": lambda box: box.encode_texts(["a circle.", "a red square."]),
    "token embeddings": lambda box: box.token_embeddings("a red circle"),
    "losses": lambda box: box.losses(
        box.encode_prompts(contexts(box), NAMES), box.encode_images(pixels(box)), torch.tensor([0, 1, 2, 0, 1])
    ),
    "logits": lambda box: box.logits(box.encode_prompts(contexts(box), NAMES), box.encode_images(pixels(box))),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_answers_and_counts_are_those_of_the_local_box_to_the_last_bit(local, served, question):
    own, (remote, ledger) = local.with_ledger(Ledger()), served
    assert torch.equal(QUESTIONS[question](remote), QUESTIONS[question](own))
    assert remote.ledger.counts == own.ledger.counts
    # Losses of features that are given are computed on the user's side.
    assert ledger.spent(ANYONE) == own.ledger.counts | {"loss_queries": 0}


def test_a_remote_box_says_what_the_model_is(local, served):
    remote, _ = served
    for name in (
        "name",
        "context_dim",
        "embed_dim",
        "image_size",
        "image_token_dim",
        "logit_scale",
        "preprocess_config",
        "access",
    ):
        assert getattr(remote, name) == getattr(local, name)
    assert remote.fingerprint() == local.fingerprint()
    picture = Image.linear_gradient("L").convert("RGB")
    assert torch.equal(remote.preprocess(picture), local.preprocess(picture))


def test_what_a_client_holds_has_no_weight_in_it(local, served):
    remote, _ = served
    for question in QUESTIONS.values():
        question(remote)
    held = reachable(remote)
    assert not any(isinstance(thing, (torch.nn.Module, torch.nn.Parameter)) for thing in held)
    tensors = [thing for thing in held if isinstance(thing, torch.Tensor)]
    assert sum(tensor.numel() for tensor in tensors) <= 3 * remote.context_dim  # the embeddings of three words
    with pytest.raises(TypeError, match="behind the wall"):
        pickle.dumps(remote)


def test_no_gradient_is_to_be_had_over_the_network(served):
    remote, _ = served
    with pytest.raises(ServiceRefused, match="no gradients"):
        load_white_box(remote.connection.address)
    point = contexts(remote).requires_grad_()
    assert not remote.encode_prompts(point, NAMES).requires_grad
    with pytest.raises(ServiceRefused, match="'coop4' needs gradients"):
        cbbt.run(cbbt.RunConfig("digits", "coop4", remote.connection.address, shots=1))


# ---- keys, budgets, the ledger ----------------------------------------------------------------------------------------


def test_a_key_is_needed_where_there_are_keys(local, monkeypatch):
    with serving(local, accounts={KEY: Account("alice", {})}) as (address, ledger):
        for wrong in ("", "another key of the tests"):
            with pytest.raises(PermissionError, match="does not know the key") as refused:
                load_black_box(address, key=wrong)
            assert "mini" not in str(refused.value) and KEY not in str(refused.value)
        monkeypatch.setenv("CBBT_KEY", KEY)
        remote = load_black_box(address, device="cpu")
        remote.encode_texts(["a circle."])
        assert remote.account()["name"] == "alice" and ledger.spent(Account("alice", {}))["class_prompts"] == 1
        assert KEY not in repr(remote)
        assert httpx.get(f"{address}/health").json() == {"status": "ok"}
        assert httpx.get(f"{address}/v1/model").status_code == 401


@pytest.mark.parametrize("key", ["key\nX-Other: 1", "schlüssel"])
def test_a_key_that_no_header_may_hold_is_refused(key):
    with pytest.raises(ValueError, match="characters that an HTTP header cannot hold"):
        load_black_box("http://127.0.0.1:9", key=key)


def test_a_budget_ends_questions_and_says_what_is_left(local):
    with serving(local, accounts={KEY: Account("alice", {"class_prompts": 5})}) as (address, ledger):
        remote = load_black_box(address, key=KEY, device="cpu")
        remote.encode_prompts(contexts(remote, sets=1), NAMES)
        with pytest.raises(BudgetExceeded, match="class_prompts: 2 of 5 are left, this request costs 3"):
            remote.encode_prompts(contexts(remote, sets=1), NAMES)
        assert remote.ledger.counts["class_prompts"] == 3  # what was refused costs nothing on this side either
        assert remote.account()["left"] == {"loss_queries": None, "class_prompts": 2, "images": None}
        remote.encode_texts(["a circle.", "a square."])
        assert remote.account()["spent"]["class_prompts"] == 5


def test_a_question_that_is_asked_again_is_answered_again_and_charged_once(served):
    remote, ledger = served
    content = pack({"contexts": contexts(remote)}, {"class_names": NAMES, "position": "end"})
    headers = {"Content-Type": MEDIA_TYPE, "Idempotency-Key": "first"}
    answers = [remote.connection.post("/v1/prompts", content, headers).content for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert ledger.spent(ANYONE)["class_prompts"] == 9
    other = pack({"contexts": contexts(remote) + 1}, {"class_names": NAMES, "position": "end"})
    with pytest.raises(ValueError, match="used for another request"):
        remote.connection.post("/v1/prompts", other, headers)
    assert ledger.spent(ANYONE)["class_prompts"] == 9


def test_questions_have_names_that_follow_from_the_ledger_and_the_content():
    one, again, other = Ledger(name="run"), Ledger(name="run"), Ledger(name="another run")
    assert name_of(one, "texts", b"a") == name_of(again, "texts", b"a")
    names = {
        name_of(one, "texts", b"a"),
        name_of(one, "texts", b"b"),
        name_of(one, "images", b"a"),
        name_of(other, "texts", b"a"),
    }
    again.charge("images", 1)
    assert len(names | {name_of(again, "texts", b"a")}) == 5
    assert Ledger().name != Ledger().name


def test_the_servers_counts_outlive_it(tmp_path):
    first = ServerLedger(tmp_path / "ledger.sqlite")
    assert first.charge(ANYONE, {"images": 3}, "one", "digest")
    second = ServerLedger(tmp_path / "ledger.sqlite")  # the first was never closed
    assert second.spent(ANYONE) == NOTHING | {"images": 3}
    assert not second.charge(ANYONE, {"images": 3}, "one", "digest")
    second.take_back(ANYONE, {"images": 3}, "one")
    assert second.spent(ANYONE) == NOTHING and second.charge(ANYONE, {"images": 2}, "one", "another")


def test_two_servers_may_share_a_ledger(tmp_path):
    ledgers = [ServerLedger(tmp_path / "ledger.sqlite") for _ in range(2)]

    def charge(ledger, number):
        for n in range(100):
            ledger.charge(Account("a", {}), {"images": 1}, f"{number} {n}", "")

    threads = [threading.Thread(target=charge, args=pair) for pair in zip(ledgers, range(2))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert ledgers[0].spent(Account("a", {}))["images"] == 200


@pytest.mark.parametrize("content, message", [
    ("", "should hold entries"), ("- a", "should hold entries"), ("a: {key: short}", "at least 16 characters"),
    ("a: {key: 1234567890123456}", "at least 16 characters"), ("a: {images: 3}", "at least 16 characters"),
    ("a: {key: key-of-sixteen-characters, image: 3}", "got image: 3"),
    ("a: {key: key-of-sixteen-characters, images: -1}", "got images: -1"),
    ("a: {key: key-of-sixteen-characters}\nb: {key: key-of-sixteen-characters}", "has the same key as another"),
    ("a: [", "cannot read the key file"),
])  # fmt: skip
def test_a_file_of_keys_that_is_none_is_refused_and_shows_no_key(tmp_path, content, message):
    (tmp_path / "keys.yaml").write_text(content)
    with pytest.raises(ValueError, match=message) as refused:
        read_keys(tmp_path / "keys.yaml")
    assert "key-of-sixteen" not in str(refused.value)


def test_keys_and_budgets_are_read(tmp_path):
    (tmp_path / "keys.yaml").write_text(
        "alice: {key: key-of-sixteen-characters, images: 20}\n1: {key: another-of-sixteen-characters}"
    )
    assert sorted(account.name for account in read_keys(tmp_path / "keys.yaml").values()) == ["1", "alice"]
    assert next(iter(read_keys(tmp_path / "keys.yaml").values())).budget == {"images": 20}


@pytest.mark.parametrize("options, message", [
    ({"host": "0.0.0.0"}, "can be reached from other machines"), ({"host": "::"}, "can be reached from other machines"),
    ({"grants": ["everything"]}, "choose from texts"), ({"grants": ["images"]}, "no classes can be queried"),
    ({"keys": "no such file"}, "cannot read the key file"), ({"ledger": "/proc/none/ledger"}, "cannot be opened"),
])  # fmt: skip
def test_what_should_not_be_served_is_refused_before_the_port_is_opened(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        serve("mini", port=free_port(), **options)


# ---- grants -----------------------------------------------------------------------------------------------------------

QUICK = {"epochs": 2, "shots": 2}


@pytest.mark.parametrize("grants, access", [
    ("texts,images", {"text", "pixels", "features"}), ("embeddings", {"token embeddings", "pixels", "features"}),
    ("embeddings,logits", {"token embeddings", "pixels", "logits"}), ("texts,losses", {"text", "pixels", "losses"}),
])  # fmt: skip
def test_grants_say_what_is_taken_and_given(grants, access):
    assert granted(grants.split(",")) == access


@pytest.mark.parametrize("grants, method, message", [
    ("texts,images", "cbbt", "takes text, pixels and gives features, and no token embeddings"),
    ("embeddings,logits", "cbbt", "gives logits, and no features"),
    ("embeddings,logits", "adapter", "and no features"),
    ("embeddings,losses", "craft", "gives losses, and no logits"),
])  # fmt: skip
def test_a_method_that_needs_more_is_refused_before_its_first_query(local, grants, method, message):
    with serving(local, grants=grants.split(",")) as (address, ledger):
        with pytest.raises(ServiceRefused, match=message) as refused:
            cbbt.run(cbbt.RunConfig("digits", method, address, **QUICK))
        assert "\n" not in str(refused.value)
        assert ledger.spent(ANYONE) == NOTHING


@pytest.mark.parametrize("grants, method, options", [
    ("texts,images", "adapter", {"start": "template"}),
    ("embeddings,images,features", "cbbt", {"q": 4}),
    ("embeddings,logits", "craft", {"options": {"population": 4, "evaluations": 8}}),
    ("embeddings,losses", "bbt", {"max_loss_queries": 40}),
    ("embeddings,texts,losses", "zero_shot_bare", {"shots": 0}),
])  # fmt: skip
def test_a_method_gets_from_its_grants_what_it_gets_from_a_local_box(local, grants, method, options):
    with serving(local, grants=grants.split(",")) as (address, ledger):
        record = cbbt.run(cbbt.RunConfig("digits", method, address, **QUICK | options))
        # Without features CraFT asks for the logits at which it trains its head, as behind the service "logits".
        service = {"service": "logits"} if method == "craft" else {}
        own = cbbt.run(cbbt.RunConfig("digits", method, "mini", **QUICK | options | service))
        assert record["scores"].keys() == own["scores"].keys() and record["queries"] == own["queries"]
        for name, score in own["scores"].items():
            # Candidates of CraFT are asked about one by one, which changes last bits.
            assert record["scores"][name] == pytest.approx(score, abs=1e-3 if "ece" in name else 0.6 if method == "craft" else 0)
        assert ledger.spent(ANYONE)["images"] > 0


def test_texts_alone_say_the_initial_context_in_words(local):
    with serving(local, grants=["texts", "images"]) as (address, _):
        record = cbbt.run(cbbt.RunConfig("digits", "adapter", address, **QUICK))
        own = cbbt.run(cbbt.RunConfig("digits", "adapter", "mini", **QUICK))
        assert record["scores"]["test_accuracy"] == pytest.approx(own["scores"]["test_accuracy"], abs=0.3)
        with pytest.raises(ValueError, match="cannot be written as words"):
            cbbt.run(cbbt.RunConfig("digits", "adapter", address, context_init="random", **QUICK))


def test_sealed_prompts_tell_nothing_but_what_is_asked_about_whole_sets(local):
    with serving(local, grants=["embeddings", "losses"]) as (address, _):
        remote = load_black_box(address, device="cpu")
        text, images = remote.encode_prompts(contexts(remote), NAMES), remote.encode_images(pixels(remote))
        labels = torch.tensor([0, 1, 2, 0, 1])
        whole = QUESTIONS["losses"](local)
        assert torch.equal(remote.losses(text, images, labels), whole)
        assert torch.allclose(torch.cat([remote.losses(each[None], images, labels) for each in text]), whole, atol=1e-6)
        offsets = torch.randn(5, 3, generator=torch.Generator().manual_seed(5))
        assert torch.equal(
            remote.losses(text, images, labels, offsets),
            local.losses(local.encode_prompts(contexts(local), NAMES), local.encode_images(pixels(local)), labels, offsets),
        )
        for attempt in (lambda: images @ text[0].T, lambda: text + 0, lambda: remote.losses(text[:, :2], images, labels)):
            with pytest.raises(ServiceRefused, match="no prompt features"):
                attempt()
        with pytest.raises(ServiceRefused, match="gives no logits"):
            remote.logits(text, images)


# ---- faults -----------------------------------------------------------------------------------------------------------


def test_another_model_at_the_same_address_stops_the_run_with_a_clear_line(local):
    ledger = ServerLedger(":memory:")
    with serving(local, ledger=ledger) as (address, _):
        remote = load_black_box(address, device="cpu")
        remote.encode_texts(["a circle."])
    port = int(address.rsplit(":", 1)[1])
    with serving(load_black_box("mini", None, device="cpu"), ledger=ledger, port=port):
        with pytest.raises(BoxChanged, match="does not serve the model"):
            remote.encode_texts(["a circle."])
        assert ledger.spent(ANYONE)["class_prompts"] == 1


def test_a_run_of_another_model_is_not_resumed(local, tmp_path, monkeypatch):
    config = {"dataset": "digits", "method": "adapter", "shots": 1, "epochs": 2}
    with serving(local) as (address, _):
        config = cbbt.RunConfig(backbone=address, **config)
        monkeypatch.setattr("cbbt.runs.experiment._save", lambda record, folder: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cbbt.run(config, tmp_path, save_every=-1)
        monkeypatch.undo()
    with serving(load_black_box("mini", None, device="cpu"), port=int(address.rsplit(":", 1)[1])):
        with pytest.raises(ValueError, match="another model is served"):
            cbbt.run(config, tmp_path)


def test_a_finished_run_is_read_without_its_server(local, tmp_path):
    with serving(local) as (address, _):
        config = cbbt.RunConfig("digits", "zero_shot", address, shots=0)
        record = cbbt.run(config, tmp_path)
    assert cbbt.run(config, tmp_path) == record
    assert record["origin"]["weights"] == local.fingerprint()


def test_a_server_that_is_away_is_waited_for(local, capsys):
    with serving(local) as (address, ledger):
        remote = load_black_box(address, device="cpu")
    back = threading.Event()

    def later():
        time.sleep(2)
        with serving(local, ledger=ledger, port=int(address.rsplit(":", 1)[1])):
            back.wait(20)

    thread = threading.Thread(target=later)
    thread.start()
    try:
        assert remote.encode_texts(["a circle."]).shape == (1, remote.embed_dim)
    finally:
        back.set()
        thread.join()
    assert f"waiting for {address}" in capsys.readouterr().err


def test_waiting_ends(served, monkeypatch):
    remote, _ = served
    closed = RemoteBox.with_ledger(remote, Ledger())
    closed.connection = connections.Connection(f"http://127.0.0.1:{free_port()}", patience=0.3)
    with pytest.raises(BoxUnavailable, match="did not answer for 0.3 s: ConnectError"):
        closed.encode_texts(["a circle."])


@pytest.mark.parametrize("status, headers", [(503, {"Retry-After": "1"}), (429, {}), (502, {})])
def test_what_passes_is_asked_again(monkeypatch, status, headers):
    monkeypatch.setattr(connections.tenacity.nap, "sleep", lambda seconds: None)
    answers = iter([httpx.Response(status, headers=headers, json={"detail": "busy"})] * 2 + [httpx.Response(200, text="done")])
    asked = connections.Connection("http://nowhere")
    asked.client = httpx.Client(base_url="http://nowhere", transport=httpx.MockTransport(lambda request: next(answers)))
    assert asked.get("/").text == "done"


@pytest.mark.parametrize("answer", [{"text": "<html>"}, {"json": {}}, {"json": []}])
def test_what_is_no_server_of_this_kind_is_refused(monkeypatch, answer):
    monkeypatch.setattr(connections.Connection, "get", lambda self, path: httpx.Response(200, **answer))
    with pytest.raises(ValueError, match="is not a `cbbt serve` server"):
        load_black_box("http://nowhere")


def test_an_answer_that_is_none_is_refused(local):
    remote = RemoteBox.__new__(RemoteBox)
    with serving(local) as (address, _):
        vars(remote).update(vars(load_black_box(address, device="cpu")))
    for content in (b"", b"no tensors", pack({"features": torch.zeros(2, 128)}), pack({"other": torch.zeros(1, 128)})):
        response = httpx.Response(200, content=content, headers={"X-Box-Fingerprint": remote.fingerprint()})
        remote.connection.client = httpx.Client(
            base_url="http://nowhere", transport=httpx.MockTransport(lambda request, response=response: response)
        )
        with pytest.raises(ValueError, match="answer"):
            remote.encode_texts(["a circle."])


def test_numbers_that_are_not_finite_are_not_sent(served):
    remote, ledger = served
    for ask in (
        lambda: remote.encode_prompts(contexts(remote) / 0, NAMES),
        lambda: remote.encode_images(pixels(remote) * torch.inf),
    ):
        with pytest.raises(FloatingPointError, match="must be finite"):
            ask()
    assert ledger.spent(ANYONE) == NOTHING


def test_a_question_that_is_too_large_is_refused_on_this_side(local):
    with serving(local, megabytes=1) as (address, ledger):
        remote = load_black_box(address, device="cpu")
        with pytest.raises(ValueError, match="takes 1000000: send smaller batches"):
            remote.encode_images(pixels(remote, 200))
        with pytest.raises(ValueError, match="an answer may have 1000000 bytes"):
            remote.encode_prompts(contexts(remote, sets=700, length=1), NAMES)
        assert ledger.spent(ANYONE) == NOTHING and remote.ledger.counts == NOTHING


@pytest.mark.parametrize("address, message", [
    ("http://", "is not an address"), ("http://host:port", "is not an address"), ("http://host:8000?key=1", "is not an address"),
    ("http://me:secret@host:8000", "holds a password"),
])  # fmt: skip
def test_addresses_that_are_none_are_refused_in_a_configuration(address, message):
    with pytest.raises(ValueError, match=message) as refused:
        cbbt.RunConfig("digits", "cbbt", address)
    assert "secret" not in str(refused.value)


def test_a_run_through_a_server_is_named_by_its_address():
    config = cbbt.RunConfig("digits", "cbbt", "http://host:8000/")
    assert config.backbone == "http://host:8000" and config.run_id.startswith("digits-http-host-8000-cbbt-16shot-seed1-")
    with pytest.raises(ValueError, match="needs a local model"):
        cbbt.RunConfig("digits", "cbbt", "http://host:8000", service="half")
    with pytest.raises(ValueError, match="leave pretrained at 'default'"):
        load_black_box("http://host:8000", "openai")


# ---- not a hole -------------------------------------------------------------------------------------------------------

GOOD = {"class_names": NAMES, "position": "end"}


def message(tensors=None, words=GOOD, raw=None):
    metadata = {"words": raw if raw is not None else json.dumps(words)}
    return save(tensors if tensors is not None else {"contexts": torch.zeros(1, 1, 128)}, metadata)


def lying(header: dict, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


MALFORMED = {
    "nothing": b"",
    "noise": b"\x00" * 64,
    "text": b"contexts",
    "pickle": pickle.dumps({"contexts": [1.0]}),
    "a header of 2^63 bytes": (2**63).to_bytes(8, "little") + b"{}",
    "a header that is no JSON": (4).to_bytes(8, "little") + b"{{{{",
    "a tensor larger than the file": lying({"contexts": {"dtype": "F32", "shape": [2**40, 1, 128], "data_offsets": [0, 2**49]}}),
    "overlapping tensors": lying({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, b"\0" * 4),
    "float64": message({"contexts": torch.zeros(1, 1, 128, dtype=torch.float64)}),
    "float16": message({"contexts": torch.zeros(1, 1, 128, dtype=torch.float16)}),
    "whole numbers": message({"contexts": torch.zeros(1, 1, 128, dtype=torch.int64)}),
    "NaN": message({"contexts": torch.full((1, 1, 128), torch.nan)}),
    "infinity": message({"contexts": torch.full((1, 1, 128), torch.inf)}),
    "another width": message({"contexts": torch.zeros(1, 1, 127)}),
    "no context": message({"contexts": torch.zeros(0, 1, 128)}),
    "two axes": message({"contexts": torch.zeros(1, 128)}),
    "five axes": message({"contexts": torch.zeros(1, 1, 1, 1, 128)}),
    "contexts of other classes": message({"contexts": torch.zeros(1, 2, 1, 128)}),
    "another tensor": message({"contexts": torch.zeros(1, 1, 128), "weights": torch.zeros(1)}),
    "no tensor": message({"other": torch.zeros(1)}),
    "a context too long": message({"contexts": torch.zeros(1, 500, 128)}),
    "no words": message(words={}),
    "words that are no JSON": message(raw="{"),
    "words that are no object": message(raw="[1]"),
    "deep words": message(raw="[" * 100_000),
    "no names": message(words=GOOD | {"class_names": []}),
    "an empty name": message(words=GOOD | {"class_names": [""]}),
    "names that are numbers": message(words=GOOD | {"class_names": [1]}),
    "names as one text": message(words=GOOD | {"class_names": "circle"}),
    "an unknown name": message(words=GOOD | {"class_names": ["/etc/passwd"]}),
    "a mark of the tokenizer": message(words=GOOD | {"class_names": ["<end_of_text>"]}),
    "a name too long": message(words=GOOD | {"class_names": ["circle " * 250]}),
    "an unknown position": message(words=GOOD | {"position": "os.system"}),
    "an unknown word": message(words=GOOD | {"module": "os"}),
    "texts as well": message(words=GOOD | {"texts": ["a circle."]}),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_messages_get_4xx_and_cost_nothing(served, case):
    remote, ledger = served
    response = httpx.post(
        f"{remote.connection.address}/v1/prompts", content=MALFORMED[case], headers={"Content-Type": MEDIA_TYPE}
    )
    assert 400 <= response.status_code < 500 and response.json()["detail"]
    assert "Traceback" not in response.text and "site-packages" not in response.text
    assert ledger.spent(ANYONE) == NOTHING


@pytest.mark.parametrize("path, tensors, words", [
    ("losses", {"contexts": torch.zeros(1, 1, 128), "images": torch.zeros(2, 128), "labels": torch.tensor([0, 3])}, GOOD),
    ("losses", {"contexts": torch.zeros(1, 1, 128), "images": torch.zeros(2, 128), "labels": torch.tensor([0, -1])}, GOOD),
    ("losses", {"contexts": torch.zeros(1, 1, 128), "images": torch.zeros(2, 128), "labels": torch.tensor([0.0, 1.0])}, GOOD),
    ("losses", {"contexts": torch.zeros(1, 1, 128), "images": torch.zeros(2, 128), "labels": torch.tensor([0])}, GOOD),
    ("losses", {"contexts": torch.zeros(1, 1, 128), "images": torch.zeros(2, 127), "labels": torch.tensor([0, 1])}, GOOD),
    ("losses", {"images": torch.zeros(2, 128), "labels": torch.tensor([0, 1])}, GOOD),
    ("losses", {"contexts": torch.zeros(1, 1, 128), "images": torch.zeros(1, 128), "labels": torch.tensor([0]),
                "offsets": torch.zeros(1, 2)}, GOOD),
    ("logits", {"contexts": torch.zeros(1, 1, 128), "images": torch.zeros(2, 128)}, {"texts": ["a circle."]}),
    ("predictions", {"contexts": torch.zeros(2, 1, 128), "images": torch.zeros(2, 128)}, GOOD),
    ("images", {"pixels": torch.zeros(1, 3, 31, 32)}, {}),
    ("images", {"pixels": torch.zeros(1, 1, 32, 32)}, {}),
    ("images", {"pixels": torch.zeros(1, 3, 32, 32)}, {"normalize": "yes"}),
    ("images", {"pixels": torch.zeros(1, 3, 32, 32), "tokens": torch.zeros(1, 8)}, {}),
])  # fmt: skip
def test_questions_that_do_not_fit_get_4xx_and_cost_nothing(served, path, tensors, words):
    remote, ledger = served
    response = httpx.post(
        f"{remote.connection.address}/v1/{path}", content=pack(tensors, words), headers={"Content-Type": MEDIA_TYPE}
    )
    assert 400 <= response.status_code < 500 and response.json()["detail"]
    assert ledger.spent(ANYONE) == NOTHING


def test_bodies_are_bounded_however_they_come(local):
    with serving(local, megabytes=1) as (address, ledger):
        url, headers = f"{address}/v1/prompts", {"Content-Type": MEDIA_TYPE}
        assert httpx.post(url, content=bytes(1_000_001), headers=headers).status_code == 413
        assert httpx.post(url, content=iter([bytes(100_000)] * 11), headers=headers).status_code == 413  # without a length
        assert httpx.post(f"{address}/v1/texts", json={"texts": ["a circle."] * 200_000}).status_code == 413
        bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))
        assert httpx.post(url, content=bomb, headers=headers | {"Content-Encoding": "zstd"}).status_code == 422
        assert httpx.post(url, content=b"junk", headers=headers | {"Content-Encoding": "zstd"}).status_code == 422
        assert httpx.post(url, content=b"junk", headers=headers | {"Content-Encoding": "gzip"}).status_code == 415
        assert httpx.post(url, content=b"junk", headers={"Content-Type": "application/x-pickle"}).status_code == 415
        assert ledger.spent(ANYONE) == NOTHING


def test_a_caller_that_falls_silent_is_left(local):
    with serving(local, seconds=0.3) as (address, ledger):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as caller:
            caller.sendall(
                f"POST /v1/prompts HTTP/1.1\r\nHost: x\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: 100\r\n\r\nhalf".encode()
            )
            assert b"408" in caller.recv(1000).split(b"\r\n")[0]
        with socket.create_connection((host, int(port))) as caller:
            caller.sendall(b"POST /v1/prompts HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")  # and goes
        assert load_black_box(address, device="cpu").encode_texts(["a circle."]).isfinite().all()


def test_a_caller_that_does_not_read_is_left(local):
    with serving(local, seconds=0.5, megabytes=16) as (address, _):
        host, port = address.removeprefix("http://").split(":")
        body = message({"contexts": contexts(local, sets=8000, length=1)})  # an answer of 12 MB, more than sockets hold
        with socket.create_connection((host, int(port)), timeout=30) as caller:
            head = f"POST /v1/prompts HTTP/1.1\r\nHost: x\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
            caller.sendall(head.encode() + body)
            first = caller.recv(1000)
            assert b"200 OK" in first
            time.sleep(2)
            received = len(first)
            while part := caller.recv(1 << 20):
                received += len(part)
        assert received < 8000 * 3 * 128 * 4
        assert load_black_box(address, device="cpu").encode_texts(["a circle."]).isfinite().all()


def test_what_requests_hold_is_bounded_together_until_they_are_answered(local, monkeypatch):
    go = threading.Event()
    with serving(local, megabytes=1) as (address, ledger):
        remotes = [load_black_box(address, device="cpu") for _ in range(5)]
        images = pixels(local, 70)  # 0.86 MB, and once more expanded
        monkeypatch.setattr(type(local), "_images", lambda self, *question: go.wait(20) and torch.zeros(len(question[0]), 128))
        monkeypatch.setattr(RemoteBox, "_images", REMOTE_IMAGES)
        threads = [threading.Thread(target=remote.encode_images, args=(images,)) for remote in remotes]
        [thread.start() for thread in threads]
        time.sleep(1.5)
        attempts = sum(remote.connection.traffic["requests"] for remote in remotes)
        go.set()
        [thread.join() for thread in threads]
        assert attempts > 6 and ledger.spent(ANYONE)["images"] == 5 * 70  # some were told to come again, and did


REMOTE_IMAGES = RemoteBox._images


def test_a_model_that_fails_charges_nothing_and_tells_nothing(local, monkeypatch):
    with serving(local) as (address, ledger):
        remote = load_black_box(address, device="cpu")

        def fail(self, question):
            raise RuntimeError("out of memory at /secret/weights.pt")

        monkeypatch.setattr(type(local), "_texts", fail)
        monkeypatch.setattr(
            RemoteBox, "_texts", lambda self, texts: self._ask("texts", {"features": (1, 128)}, json={"texts": texts})
        )
        with pytest.raises(BoxUnavailable, match="the model failed on this request") as told:
            remote.encode_texts(["a circle."])
        assert "secret" not in str(told.value)
        assert ledger.spent(ANYONE) == NOTHING


def test_wire_messages_hold_what_was_packed_and_nothing_of_python():
    tensors = {"a": torch.randn(2, 3), "b": torch.tensor([1, 2])}
    found, words = unpack(pack(tensors, {"names": ["é"]}))
    assert all(torch.equal(found[name], tensors[name]) for name in tensors) and words == {"names": ["é"]}
    assert expanded(compressed(b"abc" * 1000), 3000) == b"abc" * 1000
    for body in (compressed(b"abc" * 1000), b"junk", zstandard.ZstdCompressor(write_content_size=False).compress(b"abc")):
        with pytest.raises(WireError):
            expanded(body, 2999)


# ---- load -------------------------------------------------------------------------------------------------------------


def run_worker(worker, questions):
    """Ask all questions, (account, rows, kind), at once; returns what was asked of the model, in order, and the answers."""
    import asyncio

    asked = []

    def ask(rows):
        asked.append(rows.tolist())
        return rows * 10

    async def main():
        return await asyncio.gather(*(worker.ask(name, Question(rows, ask, kind)) for name, rows, kind in questions))

    return asyncio.run(main()), asked


def test_accounts_take_turns():
    rows = [torch.tensor([number]) for number in range(6)]
    questions = [("a", rows[0], None), ("a", rows[1], None), ("a", rows[2], None), ("b", rows[3], None), ("c", rows[4], None)]
    answers, asked = run_worker(Worker(10), questions)
    assert asked == [[0], [3], [4], [1], [2]] and [answer.item() for answer in answers] == [0, 10, 20, 30, 40]


def test_questions_are_joined_where_they_differ_in_their_rows_alone():
    questions = [
        ("a", torch.tensor([0]), ("k",)), ("b", torch.tensor([1, 2]), ("k",)), ("c", torch.tensor([3]), ("other",)),
        ("d", torch.tensor([4, 5]), ("k",)), ("e", torch.tensor([6]), None),
    ]  # fmt: skip
    answers, asked = run_worker(Worker(10, join=4), questions)
    assert asked == [[0, 1, 2], [3], [4, 5], [6]]
    assert [answer.tolist() for answer in answers] == [[0], [10, 20], [30], [40, 50], [60]]


def test_joined_questions_get_their_own_answers(local):
    with serving(local, join=1000) as (address, ledger):
        boxes = [load_black_box(address, device="cpu") for _ in range(4)]
        points = [contexts(local, sets=number + 1) + number for number in range(4)]
        answers = [None] * 4

        def ask(number):
            answers[number] = [boxes[number].encode_prompts(points[number], NAMES) for _ in range(10)]

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        for number in range(4):
            alone = local.encode_prompts(points[number], NAMES)
            assert all(torch.allclose(answer, alone, atol=1e-5) for answer in answers[number])
        assert ledger.spent(ANYONE)["class_prompts"] == 10 * 3 * sum(range(1, 5))


def test_beyond_the_bound_of_the_queue_callers_are_told_when_to_come_again(local):
    with pytest.raises(Busy):
        Worker(0).reserve()
    with serving(local, waiting=0) as (address, ledger):
        response = httpx.post(f"{address}/v1/texts", json={"texts": ["a circle."]})
        assert response.status_code == 503 and response.headers["Retry-After"] == "1"
        assert ledger.spent(ANYONE) == NOTHING


# ---- callers without the model's preprocessing ------------------------------------------------------------------------


def encoded(picture, kind="PNG"):
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def test_encoded_images_and_texts_become_features(local, served):
    remote, ledger = served
    picture = Image.radial_gradient("L").resize((50, 70)).convert("RGB")
    asked = {"input": ["a circle.", {"image": encoded(picture)}, {"text": "a square."}], "encoding_format": "base64"}
    data = httpx.post(f"{remote.connection.address}/v1/embeddings", json=asked).json()["data"]
    found = torch.stack([torch.frombuffer(bytearray(base64.b64decode(row["embedding"])), dtype=torch.float32) for row in data])
    assert torch.equal(found[1], local.encode_images(local.preprocess(picture)[None])[0])
    assert torch.equal(found[[0, 2]], local.encode_texts(["a circle.", "a square."]))
    assert ledger.spent(ANYONE) == NOTHING | {"class_prompts": 2, "images": 1}
    modal = {"input": f"data:image/png;base64,{encoded(picture)}", "modality": "image"}
    again = httpx.post(f"{remote.connection.address}/v1/embeddings", json=modal).json()["data"][0]["embedding"]
    assert torch.equal(torch.tensor(again), found[1])


@pytest.mark.parametrize("inputs", [
    [], [""], [{"image": "no base64"}], [{"image": "é"}], [{"image": encoded(Image.new("RGB", (2, 2)), "BMP")}], [{"image": "https://example.org/cat.jpg"}],
    [{"image": "file:///etc/passwd"}], [{}], [{"image": encoded(Image.new("RGB", (2, 2))), "text": "a"}], [1], {"image": None},
    [{"image": base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(50)).decode()}], [{"image": encoded(Image.new("1", (9000, 9000)))}],
])  # fmt: skip
def test_inputs_that_are_no_image_and_no_text_get_4xx_and_cost_nothing(served, inputs):
    remote, ledger = served
    response = httpx.post(f"{remote.connection.address}/v1/embeddings", json={"input": inputs})
    assert 400 <= response.status_code < 500 and ledger.spent(ANYONE) == NOTHING


def test_features_kept_of_a_local_box_are_those_of_its_server_and_not_asked_again(local, tmp_path):
    cbbt.run(cbbt.RunConfig("digits", "zero_shot", shots=0), cache=tmp_path, device="cpu")
    with serving(local) as (address, ledger):
        record = cbbt.run(cbbt.RunConfig("digits", "zero_shot", address, shots=0), cache=tmp_path)
        assert record["evaluation_queries"]["images"] > 1000 and ledger.spent(ANYONE)["images"] == 0
