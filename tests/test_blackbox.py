"""The wall: nothing but answers comes through, and every question is counted."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import cbbt
from cbbt.box.blackbox import BlackBox, WhiteBox
from cbbt.box.device import device_of
from cbbt.box.ledger import GRAINS

NAMES = ["cat", "sea or lake", "apple pie"]


def reachable(root):
    """Every object that attributes, containers, bound methods and closures lead to from `root`."""
    seen, queue = {}, [root]
    while queue:
        thing = queue.pop()
        if id(thing) in seen or isinstance(thing, (str, bytes, int, float, type, type(copy))):
            continue
        seen[id(thing)] = thing
        queue += list(getattr(thing, "__dict__", {}).values())
        queue += [getattr(thing, slot) for slot in getattr(type(thing), "__slots__", ()) if hasattr(thing, slot)]
        if isinstance(thing, dict):
            queue += list(thing.keys()) + list(thing.values())
        elif isinstance(thing, (list, tuple, set, frozenset)):
            queue += list(thing)
        queue += [cell.cell_contents for cell in getattr(thing, "__closure__", None) or ()]
        if hasattr(thing, "__self__"):
            queue.append(thing.__self__)
        if not isinstance(thing, (dict, list, tuple, set, torch.Tensor)):
            queue += [getattr(thing, name, None) for name in dir(thing) if not name.startswith("__")]
    return list(seen.values())


def test_the_walk_finds_a_module_where_one_is_held():
    class Leaky:
        def __init__(self):
            self.ask = (lambda model: lambda: model)(nn.Linear(2, 2))

    assert any(isinstance(thing, nn.Module) for thing in reachable(Leaky()))


@pytest.mark.parametrize("door", [BlackBox, WhiteBox])
def test_no_module_or_parameter_can_be_reached(loaded, door):
    box = door(loaded, torch.device("cpu"))
    weights = {parameter.data_ptr() for parameter in loaded.model.parameters()}
    for thing in reachable(box):
        assert not isinstance(thing, (nn.Module, nn.Parameter))
        assert not (isinstance(thing, torch.Tensor) and thing.data_ptr() in weights)


def test_no_answer_carries_a_gradient_or_shares_memory_with_a_weight(box, loaded):
    contexts = torch.randn(2, 1, box.context_dim, requires_grad=True)
    pixels = torch.randn(2, 3, 16, 16, requires_grad=True)
    text = box.encode_prompts(contexts, NAMES)
    images = box.encode_images(pixels)
    words = box.token_embeddings("a photo")
    losses = box.losses(text, images, torch.tensor([0, 1]))
    for answer in (text, images, words, losses, box.encode_texts(["a cat."])):
        assert not answer.requires_grad and answer.grad_fn is None
    before = words.clone()
    words += 1.0  # a copy: the model's own embeddings do not move
    assert torch.equal(box.token_embeddings("a photo"), before)


@pytest.mark.parametrize("attempt", [pickle.dumps, copy.deepcopy, copy.copy])
def test_a_box_cannot_be_carried_away(box, attempt):
    with pytest.raises(TypeError, match="behind the wall"):
        attempt(box)


def test_white_box_gradient_equals_finite_differences(loaded):
    loaded.model.double()
    white = WhiteBox(loaded, torch.device("cpu"))
    labels = torch.tensor([0, 2])
    images = torch.nn.functional.normalize(torch.randn(2, white.embed_dim, dtype=torch.float64), dim=-1)
    context = torch.randn(1, 1, white.context_dim, dtype=torch.float64, requires_grad=True)
    loss = white.losses(white.encode_prompts(context, NAMES), images, labels)[0]
    (gradient,) = torch.autograd.grad(loss, context)
    direction = torch.randn_like(context)
    step = 1e-5 * direction
    with torch.no_grad():
        ahead, behind = (
            white.losses(white.encode_prompts(c, NAMES), images, labels)[0] for c in (context + step, context - step)
        )
    assert ((ahead - behind) / 2e-5).item() == pytest.approx((gradient * direction).sum().item(), rel=1e-6)


def test_ledger_equals_a_hand_count(box):
    text = box.encode_prompts(torch.randn(5, 2, box.context_dim), NAMES)  # 5 · 3 class prompts
    images = box.encode_images(torch.randn(7, 3, 16, 16))  # 7 images
    box.losses(text, images, torch.zeros(7, dtype=torch.int64))  # 5 loss queries
    box.encode_texts(["a cat.", "a dog."])  # 2 class prompts
    assert box.ledger.counts == {"loss_queries": 5, "class_prompts": 17, "images": 7}


def test_an_estimate_costs_what_the_method_says(box, generator):
    labels, images = torch.tensor([0, 1]), torch.randn(2, box.embed_dim)

    def loss(contexts):
        return box.losses(box.encode_prompts(contexts, NAMES), images, labels)

    start = torch.randn(1, box.context_dim)
    forward = cbbt.estimate_gradient(loss, start, q=6, generator=generator)
    assert box.ledger.counts == {"loss_queries": 7, "class_prompts": 21, "images": 0} and forward.queries == 7
    cbbt.estimate_gradient(loss, start, q=6, differences="two-sided", generator=generator)
    assert box.ledger.counts == {"loss_queries": 19, "class_prompts": 57, "images": 0}


@pytest.mark.parametrize("grain", GRAINS)
def test_a_budget_makes_the_next_query_an_error(loaded, grain):
    box = BlackBox(loaded, torch.device("cpu"), cbbt.Ledger({grain: 4}))
    ask = {
        "loss_queries": lambda: box.losses(torch.zeros(2, 3, 24), torch.zeros(1, 24), torch.zeros(1, dtype=torch.int64)),
        "class_prompts": lambda: box.encode_prompts(torch.zeros(1, 1, 32), NAMES[:2]),
        "images": lambda: box.encode_images(torch.zeros(2, 3, 16, 16)),
    }[grain]
    ask(), ask()
    with pytest.raises(cbbt.BudgetExceeded, match=f"{grain}: 4 spent, the next query costs 2, the budget is 4"):
        ask()
    assert box.ledger.counts[grain] == 4


def test_ledger_refuses_unknown_grains():
    with pytest.raises(ValueError, match="loss_queries, class_prompts, images"):
        cbbt.Ledger({"tokens": 3})


def test_journal_keeps_what_was_asked_when_counts_are_rolled_back(tmp_path):
    ledger = cbbt.Ledger(journal=tmp_path / "asked.jsonl")
    ledger.charge("images", 3)
    ledger.counts["images"] = 1  # as a resumed run does
    ledger.charge("images", 2)
    with (tmp_path / "asked.jsonl").open("a") as file:
        file.write('["images", 9')  # cut off by a kill
    assert ledger.counts["images"] == 3 and ledger.asked()["images"] == 5


def test_features_are_unit_norm_unless_raw(box):
    pixels = torch.randn(3, 3, 16, 16)
    raw, unit = box.encode_images(pixels, normalize=False), box.encode_images(pixels)
    assert torch.allclose(unit.norm(dim=1), torch.ones(3), atol=1e-6)
    assert torch.allclose(torch.nn.functional.normalize(raw, dim=1), unit, atol=1e-6)
    text = box.encode_prompts(torch.randn(2, 3, 32), NAMES)
    assert text.shape == (2, 3, 24) and torch.allclose(text.norm(dim=-1), torch.ones(2, 3), atol=1e-6)


def test_losses_are_cross_entropies(box):
    text = torch.nn.functional.normalize(torch.randn(4, 3, 24), dim=-1)
    images = torch.nn.functional.normalize(torch.randn(5, 24), dim=-1)
    labels, offsets = torch.tensor([0, 1, 2, 1, 0]), torch.randn(5, 3)
    expected = [torch.nn.functional.cross_entropy(box.logit_scale * images @ t.T + offsets, labels).item() for t in text]
    assert box.losses(text, images, labels, offsets).tolist() == pytest.approx(expected, rel=1e-5)


def test_bad_input_is_named(box):
    with pytest.raises(ValueError, match=r"\(B, 3, 16, 16\), got \(2, 3, 8, 8\)"):
        box.encode_images(torch.zeros(2, 3, 8, 8))
    for pixels in (None, torch.zeros(0, 3, 16, 16)):
        with pytest.raises(ValueError, match=r"\(B, 3, 16, 16\), got \("):
            box.encode_images(pixels)
    for pixels in (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), np.zeros((2, 3, 16, 16))):
        with pytest.raises(ValueError, match="a float tensor, got .*(uint8|float64)"):
            box.encode_images(pixels)
    for shape in ((2, 1, 31), (0, 1, 32), (1, 32)):
        with pytest.raises(ValueError, match="contexts must be"):
            box.encode_prompts(torch.zeros(shape), NAMES)
    with pytest.raises(ValueError, match="end, middle, front"):
        box.encode_prompts(torch.zeros(2, 1, 32), NAMES, position="left")
    for names in ("cat", [1, 2], []):
        with pytest.raises(ValueError, match="class_names should be a sequence of at least one text, got"):
            box.encode_prompts(torch.zeros(2, 1, 32), names)
        with pytest.raises(ValueError, match="texts should be a sequence of at least one text, got"):
            box.encode_texts(names)
    for name in ("", "_", " "):
        with pytest.raises(ValueError, match="has no token"):
            box.encode_prompts(torch.zeros(2, 1, 32), ["cat", name])
    with pytest.raises(ValueError, match=r"must be a tensor \(N, M, 32\), got list"):
        box.encode_prompts([[0.0]], NAMES)
    assert not any(box.ledger.counts.values())
    with pytest.raises(ValueError, match="nearest: .*RN50"):
        cbbt.load_black_box("RN500", pretrained=None)


@pytest.mark.parametrize("device, message", [
    ("mps", "device='mps' is not supported, choose from auto, cpu, cuda"),
    ("gpu", "device='gpu' is not supported"), ("meta", "not supported"), ("cuda:-1", "not supported"),
    ("cuda", "device='cuda' not found, torch sees 0 GPUs"), ("cuda:7", "device='cuda:7' not found"),
])  # fmt: skip
@pytest.mark.parametrize("load", [cbbt.load_black_box, cbbt.load_white_box])
def test_a_device_without_answers_is_refused_at_the_door(monkeypatch, load, device, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=message):
        load(device=device)


def test_devices_are_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(device_of(name)) for name in ("auto", None, "cuda:1", "cpu")] == ["cuda", "cuda", "cuda:1", "cpu"]
    with pytest.raises(ValueError, match="'cuda:2' not found, torch sees 2 GPUs"):
        device_of("cuda:2")
