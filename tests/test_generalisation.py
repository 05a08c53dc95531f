"""Beyond the task's own test split: halves of classes, targets, shifts, services, calibration."""

import dataclasses
import itertools
import json
import math
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

import cbbt
from cbbt.adapters import CacheAdapter, IdentityAdapter, LinearMap, ResidualAdapter
from cbbt.box.access import Sealed, ServiceRefused, require_access
from cbbt.box.blackbox import BlackBox
from cbbt.box.ledger import Ledger
from cbbt.box.service import SERVICES, PoorBox
from cbbt.data.cards import CARDS, EMBEDDED
from cbbt.data.load import load_task
from cbbt.data.shifts import OPERATIONS, ShiftedItem
from cbbt.data.targets import IMAGENET_SHIFTS, Target, find_target, half_of
from cbbt.data.task import DataError, Item, draw_shots, identity, split_digest
from cbbt.learning.fitting import Classifier, Split
from cbbt.learning.judging import confusion_matrix, expected_calibration_error, for_other_classes, judge_elsewhere
from cbbt.methods import METHODS
from cbbt.results import generalisation
from cbbt.results.generalisation import base_to_new, by_place, by_service, gain_tests
from cbbt.results.plots import generalisation as plots
from cbbt.results.records import RECORD, targets_table
from cbbt.runs.origin import origin_of

from .data_layouts import coop_root, write
from .test_blackbox import reachable
from .test_data_shots import ORACLES, published_shots
from .test_experiment import lasting

QUICK = {"dataset": "digits", "shots": 2, "epochs": 2, "q": 4}


# ---- base and new classes --------------------------------------------------------


@pytest.mark.parametrize("name, folder", ORACLES)
def test_shots_are_sampled_on_all_classes_and_then_split(tmp_path, name, folder):
    root, card = coop_root(tmp_path, name, folder), CARDS[name]
    full, middle = load_task(name, root=root), math.ceil(card.classes / 2)
    oracle = published_shots(folder, 16, 2, f"{card.folder}/{card.images}/")
    train, val = draw_shots(full.train, full.val, 16, 2)
    task = dataclasses.replace(full, train=train, val=val)
    base, new = half_of(task, "base"), half_of(task, "new")
    for split in ("train", "val"):
        drawn = [(item.key, item.label, item.class_name) for item in getattr(base, split)]
        assert drawn == [entry for entry in oracle[split] if entry[1] < middle]
    assert base.class_names == full.class_names[:middle] and new.class_names == full.class_names[middle:]
    assert [(i.key, i.label) for i in new.test] == [(i.key, i.label - middle) for i in full.test if i.label >= middle]
    assert {i.label for i in new.test} == set(range(card.classes - middle)) and len(base.test) + len(new.test) == card.test


def test_an_odd_number_of_classes_gives_the_base_one_more():
    items = tuple(Item(label, str(label), key=str(label)) for label in range(7))
    task = dataclasses.replace(load_task("digits"), class_names=tuple("0123456"), train=items, val=(), test=items)
    assert [half_of(task, part).class_names for part in ("base", "new")] == [tuple("0123"), tuple("456")]
    assert half_of(task, "all") is task


def test_nothing_of_the_new_classes_or_of_a_target_is_seen_by_a_fit(monkeypatch):
    """All that a fit is given, and all that it asks, is of the base classes; targets are opened when it has ended."""
    whole = load_task("digits", shots=2, seed=1)
    new = {identity(item) for item in (*half_of(whole, "new").train, *half_of(load_task("digits"), "new").test)}
    asked, opened, ended = set(), [], []
    image, encode = Item.image, BlackBox.encode_prompts
    monkeypatch.setattr(Item, "image", lambda self: opened.append((identity(self), bool(ended))) or image(self))
    monkeypatch.setattr(
        BlackBox, "encode_prompts", lambda box, v, names, *a: (ended or asked.update(names)) and None or encode(box, v, names, *a)
    )
    original, given = METHODS["cbbt"].fit, []

    def fit(box, support, config, session):
        given.append(support)
        fitted = original(box, support, config, session)
        ended.append(True)
        return fitted

    monkeypatch.setitem(METHODS, "cbbt", dataclasses.replace(METHODS["cbbt"], fit=fit))
    record = cbbt.run(cbbt.RunConfig(**QUICK, method="cbbt", classes="base", targets=["new", "noise", "shapes"]))
    assert asked == set(given[0].class_names) == {"zero", "one", "two", "three", "four"}
    assert set(given[0].labels.tolist()) == set(given[0].val_labels.tolist()) == set(range(5))
    shapes = {identity(item) for item in load_task("shapes").test}
    before, after = ({key for key, late in opened if late is when} for when in (False, True))
    assert not before & (new | shapes) and new & after and shapes <= after
    assert not any(key.endswith("(noise)") for key in before)
    assert record["n_judged"] == 601 and record["targets"]["new"]["n_judged"] == 596 and record["n_classes"] == 5


def target_rows(method: str, dataset: str, seed: int, classes: str, scores: dict) -> list[dict]:
    """Rows of a table of targets: target → accuracy; the bare prompt has 50 everywhere."""
    run = {"run_id": f"{method}-{dataset}-{seed}-{classes}", "dataset": dataset, "backbone": "mini", "method": method}
    run |= {"shots": 16, "seed": seed, "classes": classes, "service": "full", "ece": 5.0, "zero_shot": 50.0}
    others = {"new": "prompt", "textures": "prompt", "landcover": "prompt"}
    return [run | {"target": name, "accuracy": value, "travels": others.get(name, "all")} for name, value in scores.items()]


def test_the_harmonic_mean_is_of_base_and_new():
    rows = target_rows("cbbt", "digits", 1, "base", {"own": 90.0, "new": 60.0})
    rows += target_rows("cbbt", "digits", 2, "base", {"own": 80.0, "new": 40.0})
    rows += target_rows("cbbt", "shapes", 1, "base", {"own": 70.0, "new": 70.0})
    places = by_place(pd.DataFrame(rows))
    line = base_to_new(places).loc["cbbt"]
    base, new = (85.0 + 70.0) / 2, (50.0 + 70.0) / 2
    assert line.base == base and line.new == new and line.H == pytest.approx(2 * base * new / (base + new))
    assert line.travels == "prompt"
    with pytest.raises(ValueError, match="no run fitted on base classes"):
        base_to_new(places[places.place == "base classes"])


def test_gains_are_over_the_bare_prompt_and_data_sets_count_once():
    rows = target_rows("cbbt", "digits", 1, "all", {"own": 90.0, "noise": 60.0, "textures": 40.0, "landcover": 50.0})
    rows += target_rows("cbbt", "shapes", 1, "all", {"own": 80.0, "noise": 70.0, "textures": 60.0, "landcover": 62.0})
    rows += target_rows("adapter", "digits", 1, "all", {"own": 88.0, "noise": 61.0})
    rows += target_rows("adapter", "shapes", 1, "all", {"own": 80.0, "noise": 66.0})
    places = by_place(pd.DataFrame(rows))
    table = gain_tests(places, "cbbt")
    assert table["mean"].to_dict() == {"own test split": 35.0, "other data sets": 3.0, "noise": 15.0} and set(table.n) == {2}
    against = gain_tests(places, "cbbt", "adapter")
    assert against["mean"].to_dict() == {"own test split": 1.0, "noise": 1.5} and against["p, Holm"].between(0, 1).all()
    with pytest.raises(ValueError, match="no row of method 'lfa'; the table has adapter, cbbt"):
        gain_tests(places, "lfa")
    with pytest.raises(ValueError, match="two rows of dataset=digits"):
        by_place(pd.DataFrame(rows + rows[:1]))
    with pytest.raises(ValueError, match="no row has shots=4; the table has 16"):
        by_place(pd.DataFrame(rows), shots=4)


def test_a_service_that_does_not_admit_a_method_leaves_a_gap():
    run = {"backbone": "mini", "shots": 16, "seed": 1, "classes": "all"}
    rows = [
        run | {"dataset": name, "method": method, "service": service, "test_accuracy": accuracy}
        for name, method, service, accuracy in [
            ("digits", "bbt", "full", 80.0), ("shapes", "bbt", "full", 70.0), ("digits", "bbt", "labels", 60.0),
            ("shapes", "bbt", "labels", 50.0), ("digits", "cbbt", "full", 90.0), ("shapes", "cbbt", "full", 92.0),
        ]
    ]  # fmt: skip
    table = by_service(pd.DataFrame(rows))
    assert list(table) == ["full", "labels"] and table.loc["bbt"].tolist() == [75.0, 55.0]
    assert table.full["cbbt"] == 91.0 and math.isnan(table.labels["cbbt"])
    assert set(generalisation.SERVICES) == set(SERVICES)


def test_figures_are_drawn_of_any_methods_and_places():
    rows = []
    for seed, method in itertools.product((1, 2), ("zero_shot", "cbbt", "my_own")):
        for name in ("digits", "shapes"):
            rows += target_rows(method, name, seed, "base", {"own": 70.0 + seed, "new": 60.0 - seed})
            rows += target_rows(method, name, seed, "all", {"own": 75.0, "noise": 60.0, "textures": 50.0})
    places = by_place(pd.DataFrame(rows))
    assert len(plots.base_and_new(places).axes) == 3
    assert "+10.0" in {text.get_text() for text in plots.gains(places).axes[0].texts}
    assert plots.calibration(places[places.dataset == "digits"]).axes
    steps = pd.DataFrame({"base": [70.0, 80.0], "new": [60.0, 50.0], "H": [64.6, 61.5]}, index=pd.Index([0, 5], name="step"))
    assert len(plots.on_the_way(steps).axes[0].get_legend().get_texts()) == 3
    table = pd.DataFrame({"full": [75.0, np.nan], "labels": [np.nan, 91.0]}, index=["bbt", "cbbt"])
    assert [text.get_text() for text in plots.services(table).axes[0].texts] == ["75.0", "–", "–", "91.0"]


# ---- shifts ------------------------------------------------------------------------


@pytest.mark.parametrize("shift", OPERATIONS)
def test_a_shifted_image_is_the_same_whatever_was_shifted_before(shift):
    task = load_task("shapes")
    whole = find_target(shift, task, "all").items
    alone = find_target(shift, dataclasses.replace(task, test=task.test[5:7]), "all").items
    torch.manual_seed(3), np.random.seed(3)
    for one, other in zip(whole[5:7], alone):
        assert np.array_equal(np.asarray(one.image()), np.asarray(other.image()))
    assert [item.label for item in whole] == [item.label for item in task.test]
    assert not np.array_equal(np.asarray(whole[0].image()), task.test[0].pixels)
    assert split_digest(whole) != split_digest(task.test)  # features of the one are never taken for the other's


def test_strengths_are_as_stated():
    grey = Item(0, "grey", pixels=np.full((64, 96, 3), 128, np.uint8))
    spot = np.zeros((64, 96, 3), np.uint8)
    spot[28:36, 44:52] = 255

    def after(shift, item):
        return np.asarray(ShiftedItem(0, "", key="k", source=item, shift=shift).image(), float) / 255

    assert after("noise", grey).std() == pytest.approx(0.1, rel=0.03)
    spread = after("blur", Item(0, "spot", pixels=spot)).sum(axis=(1, 2))
    rows = np.arange(64) - (spread * np.arange(64)).sum() / spread.sum()
    assert (spread * rows**2).sum() / spread.sum() == pytest.approx(2**2 + (8**2 - 1) / 12, rel=0.05)  # σ = 64 / 32
    assert after("scale", Item(0, "spot", pixels=spot)).sum() == pytest.approx(0.75**2 * (spot / 255).sum(), rel=0.05)
    line = np.zeros((65, 65, 3), np.uint8)
    line[32, 36:60] = 255
    turned = np.argwhere(after("rotation", Item(0, "line", pixels=line))[..., 0] > 0.3) - 32
    assert abs(np.degrees(np.arctan2(*turned.T)).mean()) == pytest.approx(30, abs=1)


@pytest.mark.parametrize("name", EMBEDDED)
def test_another_style_has_the_tasks_classes_and_new_images(name):
    task = load_task(name)
    style = find_target("style", task, "all")
    assert {item.label for item in style.items} == set(range(len(task.class_names))) == set(style.rows)
    assert all(item.class_name == task.class_names[item.label] for item in style.items)
    assert not {identity(item) for item in style.items} & {identity(i) for i in (*task.train, *task.val, *task.test)}
    base = find_target("style", task, "base")
    assert base.class_names == half_of(task, "base").class_names and base.items == style.items[: len(base.items)]


# ---- ImageNet's shifts ---------------------------------------------------------------

WNIDS = ("n01", "n02", "n03", "n04")
NAMES = ("tench", "missile", "missile", "sunglasses")  # two classes have one name, as in CoOp's list


@pytest.fixture
def imagenet(tmp_path):
    write(tmp_path / "imagenet" / "classnames.txt", "".join(f"{wnid} {name}\n" for wnid, name in zip(WNIDS, NAMES)))
    for wnid in WNIDS:
        for split in ("train", "val"):
            write(tmp_path / "imagenet" / "images" / split / wnid / f"{split}_{wnid}.JPEG")
    for row in range(4):
        write(tmp_path / IMAGENET_SHIFTS["imagenetv2"] / str(row) / "a.jpeg")
        write(tmp_path / IMAGENET_SHIFTS["imagenet-sketch"] / WNIDS[row] / "s.JPEG")
    for name in ("imagenet-a", "imagenet-r"):
        for wnid in ("n04", "n03"):
            write(tmp_path / IMAGENET_SHIFTS[name] / wnid / "x.jpg")
        write(tmp_path / IMAGENET_SHIFTS[name] / "README.txt", "of the data set")
    return tmp_path


def test_imagenets_shifts_are_found_by_number_and_by_wnid(imagenet):
    task = load_task("imagenet", root=imagenet)
    second, sketch, few = (find_target(name, task, "all", imagenet) for name in ("imagenetv2", "imagenet-sketch", "imagenet-r"))
    for target in (second, sketch):
        assert target.rows == (0, 1, 2, 3) and target.class_names == NAMES and [i.label for i in target.items] == [0, 1, 2, 3]
    assert [item.key for item in second.items] == [f"{row}/a.jpeg" for row in range(4)]
    # the second "missile" is row 2, which a look-up by name would miss
    assert few.rows == (2, 3) and few.class_names == ("missile", "sunglasses")
    assert [(item.key, item.label) for item in few.items] == [("n03/x.jpg", 0), ("n04/x.jpg", 1)]


def test_version_two_is_in_the_order_of_numbers(tmp_path):
    for number in range(11):
        write(tmp_path / "imagenet" / "images" / "val" / f"n{number:02d}" / "v.JPEG")
        write(tmp_path / "imagenet" / "images" / "train" / f"n{number:02d}" / "t.JPEG")
        write(tmp_path / IMAGENET_SHIFTS["imagenetv2"] / str(number) / "a.jpeg")
    write(tmp_path / "imagenet" / "classnames.txt", "".join(f"n{number:02d} class {number}\n" for number in range(11)))
    items = find_target("imagenetv2", load_task("imagenet", root=tmp_path), "all", tmp_path).items
    assert [(item.key, item.label) for item in items][-2:] == [("9/a.jpeg", 9), ("10/a.jpeg", 10)]


def test_a_head_is_read_at_the_rows_of_the_few_classes(box, imagenet):
    task = load_task("imagenet", root=imagenet)
    target = find_target("imagenet-a", task, "all", imagenet)
    text = torch.nn.functional.normalize(torch.eye(4, box.embed_dim), dim=-1)

    class Offsets(IdentityAdapter):
        class_free = False

        def forward(self, raw):
            return super().forward(raw)[0], torch.tensor([9.0, 9.0, 0.0, 1.0]).expand(len(raw), 4)

    classifier = Classifier(text, Offsets(), 1.0, head=torch.nn.Identity())
    split = Split(torch.zeros(2, box.embed_dim), torch.tensor([0, 1]))
    scores = judge_elsewhere(classifier, target, split, box, start=text)
    assert scores["travels"] == "all" and scores["accuracy"] == 50.0  # both are "sunglasses": 1 > 0, and 9 has no say


@pytest.mark.parametrize("break_it, message", [
    (lambda root: write(root / IMAGENET_SHIFTS["imagenet-r"] / "n99" / "x.jpg"), "not classes of ImageNet, first n99"),
    (lambda root: (root / IMAGENET_SHIFTS["imagenet-r"] / "n03" / "x.jpg").unlink(), "n03 holds no image"),
    (lambda root: (root / "imagenet-rendition").rename(root / "gone"), "imagenet-r is not in"),
])  # fmt: skip
def test_a_folder_that_is_not_as_expected_is_named(imagenet, break_it, message):
    break_it(imagenet)
    with pytest.raises(DataError, match=message):
        find_target("imagenet-r", load_task("imagenet", root=imagenet), "all", imagenet)


@pytest.mark.filterwarnings("ignore:imagenet")
def test_a_run_on_imagenet_is_judged_on_all_shifts(imagenet, monkeypatch):
    values = {"dataset": "imagenet", "backbone": "photo", "method": "tip_adapter", "shots": 1, "targets": list(IMAGENET_SHIFTS)}
    record = cbbt.run(cbbt.RunConfig.from_dict(values), root=imagenet)
    judged = {name: (scores["n_judged"], scores["travels"]) for name, scores in record["targets"].items()}
    assert judged == dict(zip(["own", *IMAGENET_SHIFTS], [(4, "all")] * 3 + [(2, "all")] * 2))


# ---- what travels ----------------------------------------------------------------------


@pytest.mark.parametrize("method, settings, travels", [
    ("zero_shot", {}, "nothing"),
    ("adapter", {}, "adapter"),
    ("lfa", {"steps": 2}, "adapter"),
    ("tip_adapter", {}, "nothing"),
    ("tip_adapter_f", {}, "nothing"),
    ("cbbt_prompt", {}, "prompt"),
    ("cbbt_prompt", {"class_specific": True}, "nothing"),
    ("cbbt", {}, "prompt, adapter"),
    ("cbbt_tip", {}, "prompt"),
    ("coop4", {}, "prompt"),
    ("word_search", {"steps": 5}, "prompt"),
    ("bbt", {"max_loss_queries": 40}, "prompt"),
    ("bpt_vlm_text", {"max_loss_queries": 30}, "prompt"),
    ("craft", {"max_loss_queries": 40}, "prompt"),
    ("zip", {"max_loss_queries": 20}, "prompt"),
    ("blackvip_pca", {"max_loss_queries": 20}, "image prompt"),
])  # fmt: skip
def test_what_of_a_method_serves_new_classes(method, settings, travels):
    values = QUICK | {"method": method, "classes": "base", "targets": ["new"]} | settings
    values["shots"] = 2 if METHODS[method].needs_shots else 0
    record = cbbt.run(cbbt.RunConfig.from_dict(values))
    new, own = record["targets"]["new"], record["targets"]["own"]
    assert new["travels"] == travels and own["travels"] == "all"
    assert own["accuracy"] == record["scores"]["test_accuracy"] and own["ece"] == record["scores"]["test_ece"]
    bare = record["config"]["start"] == "context" and record["config"]["context_init"] == "a"
    assert (new["accuracy"] == new["zero_shot"]) or travels != "nothing" or not bare


def test_an_adapter_says_whether_it_serves_other_classes(generator):
    keys = torch.randn(4, 8, generator=generator)
    assert all(
        adapter.class_free for adapter in (IdentityAdapter(), LinearMap(torch.eye(8)), ResidualAdapter(8, generator=generator))
    )
    cache = CacheAdapter(keys, torch.tensor([0, 0, 1, 1]), 2)
    words = Target("new", (), ("cat", "dog", "cow"), "a {}.")
    start = torch.eye(3, 8)
    other, parts = for_other_classes(Classifier(torch.eye(2, 8), cache, 1.0, head=torch.nn.Linear(2, 2)), words, None, start)
    assert parts == [] and torch.equal(other.text, start) and other.head is None and isinstance(other.adapter, IdentityAdapter)


def test_a_learned_context_is_asked_for_the_other_names(box):
    config = cbbt.RunConfig("digits", "cbbt_prompt", shots=2, epochs=2, q=4, classes="base", targets=["new"])
    record = cbbt.run(config)
    plain = cbbt.run(dataclasses.replace(config, targets=[]))
    # judged elsewhere or not, the fit is the same, and so is what it paid
    for key in ("scores", "history", "queries", "evaluation_queries"):
        assert record[key] == plain[key]
    assert "targets" not in plain


# ---- records -----------------------------------------------------------------------------


def test_a_record_keeps_its_targets_and_a_run_of_other_target_images_is_stale(tmp_path, monkeypatch):
    config = cbbt.RunConfig(**QUICK, method="adapter", targets=["noise"])
    record = cbbt.run(config, out=tmp_path)
    assert record == json.loads((tmp_path / config.run_id / RECORD).read_text()) == cbbt.run(config, out=tmp_path)
    table = targets_table([record])
    assert list(table.target) == ["own", "noise"] and set(table.n_judged) == {1197}
    assert cbbt.runs_table([record]).targets[0] == "noise" and targets_table([]).empty
    task = load_task("digits", shots=2, seed=1)
    targets = [find_target("noise", task, "all")]
    own = origin_of(config, task, [], elsewhere=False)
    assert origin_of(config, task, targets, elsewhere=False) != own == origin_of(config, task, [], elsewhere=False)


@pytest.mark.parametrize("settings, message", [
    ({"targets": ["new"]}, "'new' needs classes='base'"),
    ({"targets": ["noise", "noise"]}, "targets has noise twice"),
    ({"targets": ["digits"]}, "the data set itself"),
    ({"targets": ["nose"]}, "choose from new, style, noise, blur, rotation, scale"),
    ({"targets": ["imagenet-a"]}, "needs dataset='imagenet'"),
    ({"targets": ["noise"], "judge": "validation"}, "targets are test images"),
    ({"dataset": "eurosat", "targets": ["style"]}, "'style' is drawn for digits"),
    ({"classes": "new"}, "choose from all, base"),
    ({"service": "poor"}, "choose from full, half"),
])  # fmt: skip
def test_wrong_targets_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        cbbt.RunConfig(**{"dataset": "digits"} | settings)


# ---- services -------------------------------------------------------------------------------


def poor(box, service: str, seed: int = 1) -> PoorBox:
    return PoorBox(box, service, seed).with_ledger(Ledger())


def answers(box, generator) -> dict:
    """The same questions to any box."""
    contexts = torch.randn(2, 1, box.context_dim, generator=generator)
    pixels = torch.randn(3, 3, 16, 16, generator=generator)
    names = [f"thing {n}" for n in range(7)]
    text, images, labels = box.encode_prompts(contexts, names), box.encode_images(pixels), torch.tensor([0, 1, 2])
    return {"text": text, "images": images, "losses": box.losses(text, images, labels), "words": box.encode_texts(["a cat."])}


@pytest.mark.parametrize("service", [name for name in SERVICES if name != "full"])
def test_a_poorer_service_answers_as_it_says_and_counts_alike(box, service):
    full, less = box.with_ledger(Ledger()), poor(box, service)
    one, other = answers(full, torch.Generator().manual_seed(4)), answers(less, torch.Generator().manual_seed(4))
    assert full.ledger.counts == less.ledger.counts and less.fingerprint() != full.fingerprint()
    if service == "half":
        assert torch.equal(other["images"], one["images"].half().float())
    if service == "int8":
        steps = other["images"] / (one["images"].abs().amax(dim=1, keepdim=True) / 127)
        assert torch.allclose(steps, steps.round(), atol=1e-3) and steps.abs().max() <= 127.001
        assert (other["images"] - one["images"]).abs().max() <= one["images"].abs().max() / 254 * 1.001
    if service.startswith("noise"):
        rest = (other["text"] - one["text"]) / one["text"].square().mean(dim=-1, keepdim=True).sqrt()
        assert rest.std() == pytest.approx(float(service.removeprefix("noise")), rel=0.15)
    if service == "logits":
        assert torch.equal(other["losses"], one["losses"])
    logits = full.logits(one["text"], one["images"])  # (2, 3, 7)
    if service == "top5":
        kept = logits.sort(dim=-1, descending=True).values[..., 4:5]
        expected = torch.nn.functional.cross_entropy(torch.where(logits < kept, kept, logits)[0], torch.tensor([0, 1, 2]))
        assert other["losses"][0] == pytest.approx(expected.item(), rel=1e-5)
    if service == "labels":
        wrong = (logits[0].argmax(dim=-1) != torch.tensor([0, 1, 2])).float().mean()
        assert other["losses"][0] == wrong
    assert isinstance(other["text"], Sealed) == isinstance(other["words"], Sealed) == (service in ("logits", "top5", "labels"))


def test_no_model_can_be_reached_through_a_poorer_service(box):
    less = poor(box, "half")
    assert not any(isinstance(thing, (torch.nn.Module, torch.nn.Parameter)) for thing in reachable(less))
    with pytest.raises(TypeError, match="behind the wall"):
        pickle.dumps(less)


def test_noise_is_drawn_anew_for_each_answer_and_again_after_the_same_questions(box):
    pixels = torch.randn(2, 3, 16, 16)
    first, again, other = (poor(box, "noise1e-2", seed) for seed in (1, 1, 2))
    one, two = first.encode_images(pixels), first.encode_images(pixels)
    assert not torch.equal(one, two)
    assert torch.equal(again.encode_images(pixels), one) and torch.equal(again.encode_images(pixels), two)
    assert not torch.equal(other.encode_images(pixels), one)
    assert not torch.equal(first.with_ledger(Ledger()).encode_images(pixels), one)  # the judge meets noise of its own


def test_sealed_features_can_be_handed_back_and_nothing_else(box):
    less = poor(box, "logits")
    text = less.encode_texts(["a cat.", "a dog."])
    images = less.encode_images(torch.randn(2, 3, 16, 16))
    assert len(text) == 2 and text.shape[0] == 2 and len([row[None] for row in text]) == 2
    assert less.logits(text[None], images).shape == (1, 2, 2)
    for attempt in (lambda: images @ text.T, lambda: text + 0, lambda: text.numpy(), lambda: text.tolist(), lambda: text.clone()):
        with pytest.raises(ServiceRefused, match="gives no prompt features"):
            attempt()
    with pytest.raises(ServiceRefused, match="gives no logits"):
        poor(box, "top5").logits(text[None], images)


@pytest.mark.parametrize("method, service, message", [
    ("cbbt", "logits", "'cbbt' needs token embeddings, features; the service 'logits' gives logits, losses, and no features"),
    ("tip_adapter", "labels", "needs features"),
    ("coop4", "half", "and no gradients"),
    ("craft", "top5", "and no logits"),
])  # fmt: skip
def test_who_needs_more_is_refused_before_the_first_query(method, service, message):
    with pytest.raises(ServiceRefused, match=message):
        cbbt.RunConfig("digits", method, shots=1, service=service)


def test_who_learns_nothing_is_served_by_all():
    for service in SERVICES:
        require_access(SERVICES[service].access, "zero_shot", service)
        record = cbbt.run(cbbt.RunConfig("digits", "zero_shot", shots=0, service=service))
        assert abs(record["scores"]["test_accuracy"] - 66) < 5
    require_access(SERVICES["labels"].access, "of_your_own", "labels")


@pytest.mark.parametrize("method, service", [("bbt", "labels"), ("bpt_vlm_text", "top5"), ("zip", "logits"), ("craft", "logits")])
def test_a_method_of_losses_lives_without_features(method, service):
    """With logits it gets what it would get, but for the head of CraFT, whose logits are counted."""
    values = QUICK | {"method": method, "max_loss_queries": 82}
    less, full = (cbbt.run(cbbt.RunConfig.from_dict(values | {"service": name})) for name in (service, "full"))
    assert 0 < less["queries"]["loss_queries"] <= 82
    if method == "zip":
        assert less["history"] == full["history"] and less["scores"] == full["scores"] and less["queries"] == full["queries"]


def test_a_run_behind_noise_goes_on_where_it_was_killed(tmp_path, killed_at):
    config = cbbt.RunConfig(**QUICK | {"method": "cbbt", "service": "noise1e-2", "targets": ["blur"]})
    calm = cbbt.run(config, out=tmp_path / "calm")
    with killed_at(6):
        cbbt.run(config, out=tmp_path / "killed", save_every=-1)
    resumed = cbbt.run(config, out=tmp_path / "killed")
    assert lasting(resumed) == lasting(calm)


def test_noisy_features_are_not_kept_for_other_runs(tmp_path):
    config = cbbt.RunConfig(**QUICK, method="adapter", service="noise1e-2")
    first = cbbt.run(config, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists() and lasting(cbbt.run(config)) == lasting(first)
    cbbt.run(dataclasses.replace(config, service="int8"), cache=tmp_path / "cache")
    kept = {path.parent.name for path in (tmp_path / "cache").rglob("*.safetensors")}
    cbbt.run(dataclasses.replace(config, service="full"), cache=tmp_path / "cache")
    assert len({path.parent.name for path in (tmp_path / "cache").rglob("*.safetensors")}) == 2 * len(kept)


# ---- calibration -------------------------------------------------------------------------------


def test_the_calibration_error_is_that_of_a_hand_computation():
    confidence = torch.tensor([0.95, 0.97, 0.62, 0.65, 0.64])  # bins (14/15, 1] and (9/15, 10/15]
    logits = torch.stack([confidence.log(), (1 - confidence).log()], dim=1)
    labels = torch.tensor([0, 1, 0, 0, 1])  # hits: 1 of 2, and 2 of 3
    expected = 100 * (2 / 5 * abs(1 / 2 - 0.96) + 3 / 5 * abs(2 / 3 - (0.62 + 0.65 + 0.64) / 3))
    assert expected_calibration_error(logits, labels) == pytest.approx(expected, abs=1e-4)
    sure = torch.tensor([[60.0, -60.0], [60.0, -60.0]])
    assert expected_calibration_error(sure, torch.tensor([0, 0])) == 0.0
    assert expected_calibration_error(sure, torch.tensor([1, 1])) == 100.0


def test_confusions_stand_in_the_row_of_the_true_class():
    answers = torch.eye(3)[[0, 1, 1, 0]]  # none is the last class, of which there is one image
    assert confusion_matrix(answers, torch.tensor([0, 0, 1, 2])).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_every_run_has_a_calibration_error():
    record = cbbt.run(cbbt.RunConfig("shapes", "zero_shot", shots=0))
    assert 0 < record["scores"]["test_ece"] < 100 and cbbt.runs_table([record]).test_ece[0] == record["scores"]["test_ece"]
