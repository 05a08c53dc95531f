"""Adapters against their formulas, written out by hand."""

import pytest
import torch
import torch.nn.functional as F

from cbbt.adapters import CacheAdapter, IdentityAdapter, ResidualAdapter


def test_residual_adapter_is_clip_adapters_formula(generator):
    adapter = ResidualAdapter(16, reduction=4, ratio=0.2, generator=generator)
    raw = 5 * torch.randn(3, 16)
    hidden = (raw @ adapter.down.weight.T).clamp(min=0)
    mixed = 0.2 * (hidden @ adapter.up.weight.T).clamp(min=0) + 0.8 * raw
    features, offsets = adapter(raw)
    assert offsets is None and torch.allclose(features, mixed / mixed.norm(dim=1, keepdim=True), atol=1e-6)
    assert adapter.down.weight.shape == (4, 16) and adapter.down.bias is None


def test_ratio_zero_is_the_identity(generator):
    raw = torch.randn(3, 16)
    features, _ = ResidualAdapter(16, ratio=0.0, generator=generator)(raw)
    assert torch.allclose(features, IdentityAdapter()(raw)[0], atol=1e-6)


def test_initial_weights_depend_on_the_generator_alone():
    torch.manual_seed(1)
    first = ResidualAdapter(16, generator=torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    second = ResidualAdapter(16, generator=torch.Generator().manual_seed(5))
    assert torch.equal(first.down.weight, second.down.weight) and torch.equal(first.up.weight, second.up.weight)


def test_cache_adapter_is_tip_adapters_formula():
    keys, labels, raw = torch.randn(6, 8), torch.tensor([0, 1, 2, 0, 1, 2]), torch.randn(4, 8)
    _, offsets = CacheAdapter(keys, labels, 3, alpha=1.7, beta=5.5)(raw)
    affinity = F.normalize(raw, dim=1) @ F.normalize(keys, dim=1).T
    expected = torch.zeros(4, 3)
    for row in range(4):
        for key, label in enumerate(labels.tolist()):
            expected[row, label] += 1.7 * torch.exp(-5.5 * (1 - affinity[row, key]))
    assert torch.allclose(offsets, expected, atol=1e-5)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda g: ResidualAdapter(16, ratio=1.2, generator=g), r"\[0, 1\], got 1.2"),
        (lambda g: ResidualAdapter(16, reduction=17, generator=g), r"1 … 16, got 17"),
        (lambda g: CacheAdapter(torch.randn(2, 4), torch.tensor([0, 1]), 2, beta=0), "beta > 0"),
    ],
)
def test_bad_settings_are_refused(build, message, generator):
    with pytest.raises(ValueError, match=message):
        build(generator)
