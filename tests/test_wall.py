"""Every black-box method works through a served box: numbers go out, numbers come in.

`ServedBox` has the public face of a `BlackBox` and nothing behind it: the real one
lives in a thread of its own, and each question and answer crosses as numpy arrays.
"""

import queue
import threading

import numpy as np
import pytest
import torch

from cbbt.box.blackbox import BlackBox
from cbbt.box.ledger import Ledger
from cbbt.learning.fitting import Session
from cbbt.methods import METHODS
from cbbt.runs.config import RunConfig
from tests.test_blackbox import reachable

BUDGET = {"loss_queries": 60}  # cuts the searches short; the other methods run their epochs
TWINS = {"blackvip": "blackvip_pca", "llm_search": "word_search"}  # need a file or a service; the fit is that of their twins
SHORTER = {
    "cross_modal": {"steps": 40},
    "sharpzo": {"numbers": 8, "population": 20, "losses": 60},
}  # 12,800 steps, 353,776 losses of themselves
METHODS_OF_QUESTIONS = [name for name, method in METHODS.items() if not (method.white_box or name in TWINS)]


def carried(thing):
    """A copy through numpy. A tensor that requires a gradient is refused (numpy does so itself)."""
    if isinstance(thing, torch.Tensor):
        return torch.from_numpy(np.array(thing.numpy()))
    if isinstance(thing, (list, tuple)):
        return type(thing)(carried(part) for part in thing)
    return thing


class ServedBox:
    """A box's public attributes, and a queue on which its methods are called."""

    def __init__(self, face: dict, questions: queue.Queue, handle: int):
        vars(self).update(face)
        self._questions, self._handle = questions, handle

    def with_ledger(self, ledger):
        return ServedBox(vars(self) | {"ledger": ledger}, self._questions, self._ask("with_ledger", ledger))

    def _ask(self, name, *arguments, **named):
        answers = queue.Queue()
        named = {key: carried(value) for key, value in named.items()}
        self._questions.put((answers, self._handle, name, carried(arguments), named))
        answer = answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _method(name):
    return lambda self, *arguments, **named: self._ask(name, *arguments, **named)


def public(kind) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


for _name in public(BlackBox) - {"with_ledger", "differentiable"}:
    setattr(ServedBox, _name, _method(_name))


@pytest.fixture
def serve(loaded):
    """A function ledger → `ServedBox`; the boxes behind are locals of a thread."""
    questions, stop = queue.Queue(), object()

    def work():
        boxes = {}
        while (question := questions.get()) is not stop:
            answers, handle, name, arguments, named = question
            try:
                if name in ("open", "with_ledger"):
                    boxes[len(boxes)] = BlackBox(loaded, torch.device("cpu"), *arguments)
                    face = dict(vars(boxes[len(boxes) - 1]))
                    answers.put((face, len(boxes) - 1) if name == "open" else len(boxes) - 1)
                else:
                    answer = getattr(boxes[handle], name)(*arguments, **named)
                    assert not (isinstance(answer, torch.Tensor) and answer.requires_grad)
                    answers.put(carried(answer))
            except Exception as error:
                answers.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def open_box(ledger: Ledger) -> ServedBox:
        answers = queue.Queue()
        questions.put((answers, None, "open", (ledger,), {}))
        face, handle = answers.get()
        return ServedBox(face | {"differentiable": False}, questions, handle)

    yield open_box
    questions.put(stop)
    thread.join()


def fit(box, pictured, method):
    shots, options = 4 if METHODS[method].needs_shots else 0, SHORTER.get(method, {})
    config = RunConfig("digits", method, q=4, epochs=1, batch_size=5, shots=shots, options=options)
    return METHODS[method].fit(box, pictured, config, Session(judge=box.with_ledger(Ledger())))


def test_what_needs_more_than_a_box_shares_its_fit_with_what_does_not():
    assert all(METHODS[name].fit is METHODS[twin].fit for name, twin in TWINS.items())


def logits(classifier, box, split):
    if classifier.image_prompt is None:
        return classifier.logits(split.features)
    return classifier.logits(classifier.image_prompt(box, split.pixels[range(len(split.labels))]))


def test_the_stand_in_has_the_public_face_of_a_box_and_no_more(serve, box):
    assert public(serve(Ledger())) == public(box)


@pytest.mark.parametrize("method", METHODS_OF_QUESTIONS)
def test_a_method_gets_by_with_answers_alone(serve, loaded, pictured, method):
    served, direct = serve(Ledger(BUDGET)), BlackBox(loaded, torch.device("cpu"), Ledger(BUDGET))
    assert not any(isinstance(thing, (torch.nn.Module, torch.Tensor)) for thing in reachable(served))
    through, beside = fit(served, pictured, method), fit(direct, pictured, method)
    assert torch.equal(logits(through.last, served, pictured.val), logits(beside.last, direct, pictured.val))
    assert through.history == beside.history and served.ledger.counts == direct.ledger.counts


@pytest.mark.parametrize("method", METHODS_OF_QUESTIONS)
def test_no_answer_to_a_method_requires_a_gradient(box, pictured, method, monkeypatch):
    answers = []
    for name in public(BlackBox) - {"with_ledger", "differentiable"}:
        original = getattr(BlackBox, name)
        monkeypatch.setattr(BlackBox, name, lambda *a, _ask=original, **k: answers.append(_ask(*a, **k)) or answers[-1])
    box.ledger.budget = BUDGET
    with torch.enable_grad():
        fit(box, pictured, method)
    tensors = [answer for answer in answers if isinstance(answer, torch.Tensor)]
    assert bool(tensors) == (method != "linear_probe")  # which has the shots' features, and asks for nothing more
    assert not any(tensor.requires_grad or tensor.grad_fn for tensor in tensors)
