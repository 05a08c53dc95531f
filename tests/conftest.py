"""A CLIP small enough for unit tests, with random weights and the real tokenizer."""

import contextlib

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg

from cbbt.box.blackbox import BlackBox, WhiteBox
from cbbt.box.ledger import Ledger
from cbbt.box.models import LoadedModel
from cbbt.data.pixels import Pixels
from cbbt.data.task import Item
from cbbt.learning.fitting import Support
from cbbt.learning.progress import Progress

NAMES = ("cat", "sea or lake", "apple pie")
TEXT = dict(context_length=32, vocab_size=49408, width=32, heads=4, layers=3)
VISION = dict(image_size=16, layers=1, width=32, head_width=16, patch_size=8)


def tiny_model(custom_text: bool = False, quick_gelu: bool = False, **text):
    """A frozen random CLIP (or CustomTextCLIP) of width 32."""
    kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = kind(embed_dim=24, vision_cfg=VISION, text_cfg=TEXT | text, quick_gelu=quick_gelu)
        # The usual initialisation is so small that prompts hardly differ.
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape)
    return model.eval().requires_grad_(False)


def tiny_loaded(**options) -> LoadedModel:
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=TEXT["context_length"])
    config = dict(PreprocessCfg(size=16).__dict__)
    return LoadedModel("tiny", tiny_model(**options), tokenizer, config)


@pytest.fixture
def loaded() -> LoadedModel:
    return tiny_loaded()


@pytest.fixture
def box(loaded) -> BlackBox:
    return BlackBox(loaded, torch.device("cpu"))


@pytest.fixture
def white_box(loaded) -> WhiteBox:
    return WhiteBox(loaded, torch.device("cpu"))


@pytest.fixture
def support(box) -> Support:
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(3, box.embed_dim, generator=generator)
    labels = torch.arange(3).repeat(4)
    views = 3 * (centres[labels] + 0.5 * torch.randn(2, 12, box.embed_dim, generator=generator))
    val = 3 * (centres + 0.5 * torch.randn(3, box.embed_dim, generator=generator))
    return Support(views, labels, val, torch.arange(3), NAMES, "a photo of a {}.")


@pytest.fixture
def pictured(box) -> Support:
    """Shots with their pixels: dark, grey and bright noise, four of each class, and one for validation."""
    draw = np.random.default_rng(2)

    def images(n):
        return [
            Item(k, NAMES[k], pixels=draw.integers(80 * k, 80 * k + 90, (16, 16, 3), np.uint8))
            for k in (np.arange(n) % 3).tolist()
        ]

    shots, val = (Pixels(images(n), box.preprocess) for n in (12, 3))
    raw = [box.with_ledger(Ledger()).encode_images(pixels[range(len(pixels))], normalize=False) for pixels in (shots, val)]
    labels = torch.arange(3).repeat(4)
    return Support(raw[0][None], labels, raw[1], torch.arange(3), NAMES, "a photo of a {}.", shots, val)


@pytest.fixture
def killed_at(monkeypatch):
    """A function step → context, in which a fit dies right after its checkpoint of that step."""

    class Killed(Exception):
        pass

    @contextlib.contextmanager
    def dying(step: int):
        save = Progress.save

        def save_and_die(self, *arguments, **own):
            save(self, *arguments, **own)
            if self.step == step:
                raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Progress, "save", save_and_die)
            yield

    return dying


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def one_thread():
    """Many tiny products: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
