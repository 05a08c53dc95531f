"""Tokens on the image side: where they go in, and who takes them."""

import pytest
import torch

import cbbt
from cbbt.box.blackbox import BlackBox
from cbbt.box.image_tokens import token_width


@pytest.fixture
def pixels(generator):
    return torch.randn(3, 3, 16, 16, generator=generator)


@pytest.mark.parametrize("normalize", [True, False])
def test_tokens_stand_between_class_token_and_patches(box, loaded, pixels, generator, normalize):
    tokens = torch.randn(2, box.image_token_dim, generator=generator)
    tower = loaded.model.visual
    patches = tower.conv1(pixels).flatten(2).mT  # (B, 4, width)
    sequence = torch.cat([tower.class_embedding.expand(3, 1, -1), patches], dim=1) + tower.positional_embedding
    x = tower.ln_pre(torch.stack([torch.stack([image[0], *tokens, *image[1:]]) for image in sequence]))
    for block in tower.transformer.resblocks:
        x = block(x)
    by_hand = tower.ln_post(x[:, 0]) @ tower.proj
    by_hand = by_hand / by_hand.norm(dim=1, keepdim=True) if normalize else by_hand
    assert torch.allclose(box.encode_images(pixels, normalize, tokens), by_hand, atol=1e-5)
    assert not torch.allclose(box.encode_images(pixels, normalize), by_hand, atol=1e-2)


def test_no_tokens_change_nothing_and_none_stay_behind(box, pixels):
    plain = box.encode_images(pixels)
    box.encode_images(pixels, tokens=torch.ones(1, 32))
    for none in (None, torch.zeros(0, 32)):
        assert torch.equal(box.encode_images(pixels, tokens=none), plain)


def test_questions_with_tokens_are_counted_and_carry_no_gradient(box, pixels):
    assert not box.encode_images(pixels, tokens=torch.ones(1, 32, requires_grad=True)).requires_grad
    assert box.ledger.counts == {"loss_queries": 0, "class_prompts": 0, "images": 3}


def test_wrong_tokens_are_refused_before_they_are_counted(box, pixels):
    for shape in ((1, 31), (32,), (3, 1, 32)):
        with pytest.raises(ValueError, match=r"'tiny' takes image tokens of shape \(V, 32\), got"):
            box.encode_images(pixels, tokens=torch.zeros(shape))
    assert box.ledger.counts["images"] == 0


def test_a_tower_without_a_class_token_takes_none(loaded, pixels):
    mini = cbbt.load_black_box("mini", device="cpu")
    assert mini.image_token_dim is None
    with pytest.raises(ValueError, match=r"'mini' takes no image tokens, got \(1, 32\)"):
        mini.encode_images(torch.zeros(1, 3, 32, 32), tokens=torch.zeros(1, 32))
    loaded.model.visual.pool_type = "avg"  # the patches' mean, which such tokens would join
    assert token_width(loaded.model.visual) is None and BlackBox(loaded, torch.device("cpu")).image_token_dim is None
