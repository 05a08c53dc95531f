"""Images as users have them, and what the augmentations make of them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from cbbt.data.augment import AUGMENTATIONS, Augmentation, _crop
from cbbt.data.task import Item

CONFIG = {"size": 20, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "interpolation": "bicubic"}
PIXELS = np.random.default_rng(0).integers(0, 255, (24, 36, 3), np.uint8)


def save_turned(image, path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be shown turned by a quarter
    image.save(path, exif=exif)


SAVED = {
    "plain.png": lambda image, path: image.save(path),
    "UPPER.JPG": lambda image, path: image.save(path, "JPEG"),
    "été 日本.jpg": lambda image, path: image.save(path),
    "grey.png": lambda image, path: image.convert("L").save(path),
    "grey16.png": lambda image, path: Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 256).save(path),
    "cmyk.jpg": lambda image, path: image.convert("CMYK").save(path),
    "alpha.png": lambda image, path: image.convert("RGBA").save(path),
    "palette.png": lambda image, path: image.convert("P").save(path, transparency=3),
    "turned.jpg": save_turned,
    "moving.gif": lambda image, path: image.save(path, save_all=True, append_images=[image.rotate(90)]),
    "dot.png": lambda image, path: image.crop((0, 0, 1, 1)).save(path),
    "strip.png": lambda image, path: image.crop((0, 0, 36, 1)).save(path),
}


@pytest.mark.parametrize("name", SAVED)
def test_images_of_any_kind_are_read_as_coop_reads_them(tmp_path, name, generator):
    path = tmp_path / name
    SAVED[name](Image.fromarray(PIXELS), path)
    image = Item(0, "a", path=path).image()
    with Image.open(path) as opened:
        plain = opened.convert("RGB")  # CoOp's; it turns nothing
    assert image.mode == "RGB" and image.size == plain.size and image.tobytes() == plain.tobytes()
    for kind in AUGMENTATIONS:
        view = Augmentation(CONFIG, kind, True)(image, generator)
        assert view.shape == (3, 20, 20) and torch.isfinite(view).all()


def views(image, generator, kind="cbbt", mirror=False, count=200):
    """Views with the normalisation undone, values from 0 to 1, (count, 3, 20, 20)."""
    make = Augmentation(CONFIG, kind, mirror)
    mean, std = (torch.tensor(CONFIG[key]).view(3, 1, 1) for key in ("mean", "std"))
    return torch.stack([make(image, generator) * std + mean for _ in range(count)])


def test_half_the_views_have_one_rectangle_of_one_colour(generator):
    drawn = views(Image.new("RGB", (36, 24), (255, 255, 255)), generator)
    marked = (drawn < 0.999).all(dim=1)
    corners, colours = set(), set()
    sizes = marked.sum(dim=(1, 2))
    assert set(sizes.tolist()) == {0, 64} and 70 < (sizes > 0).sum() < 130  # a square of 0.4 × 20
    for view, place in zip(drawn[sizes > 0], marked[sizes > 0]):
        (top, left), (bottom, right) = place.nonzero().aminmax(dim=0)
        assert (bottom - top + 1, right - left + 1) == (8, 8)
        colour = view[:, top, left]
        assert torch.equal(view[:, top : top + 8, left : left + 8], colour.view(3, 1, 1).expand(3, 8, 8))
        corners.add((int(top), int(left)))
        colours.add(tuple(colour.tolist()))
    assert len(colours) == int((sizes > 0).sum()) and {min(c) for c in zip(*corners)} == {0}
    assert {max(c) for c in zip(*corners)} == {12}


def test_outside_its_rectangle_the_whole_image_is_squashed(generator):
    image = Image.fromarray(PIXELS)
    squashed = transforms.Compose([transforms.Resize((20, 20)), transforms.ToTensor()])(image)
    agreeing = torch.isclose(views(image, generator), squashed, atol=1e-5).all(dim=1).sum(dim=(1, 2))
    assert 70 < (agreeing >= 400 - 64).sum() < 130 and agreeing.sort().values[0] < 50  # the others are crops


def test_mirrors_fall_on_half_the_views_and_only_where_allowed(generator):
    ramp = Image.fromarray(np.repeat(np.arange(0, 240, 10, np.uint8)[None, :, None], 24, 0).repeat(3, 2))
    for mirror in (True, False):
        drawn = views(ramp, generator, "crop", mirror)
        falling = (drawn[:, 0, 10, 0] > drawn[:, 0, 10, -1]).sum()
        assert 70 < falling < 130 if mirror else falling == 0


def test_crops_are_torchvisions(generator):
    boxes = torch.tensor([_crop(300, 500, generator) for _ in range(2000)])
    areas, ratios = boxes[:, 2] * boxes[:, 3] / 150_000, boxes[:, 3] / boxes[:, 2]
    assert areas.min() > 0.495 and areas.max() < 1.005 and ratios.min() > 0.74 and ratios.max() < 1.35
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = [
            transforms.RandomResizedCrop.get_params(Image.new("1", (500, 300)), (0.5, 1), (3 / 4, 4 / 3)) for _ in range(2000)
        ]
    assert torch.allclose(boxes.double().mean(0), torch.tensor(theirs).double().mean(0), rtol=0.05)
    for height, width in ((500, 20), (20, 500), (1, 7), (7, 1)):  # strips: no crop of these ratios is large enough
        image = Image.new("1", (width, height))
        expected = transforms.RandomResizedCrop.get_params(image, (0.5, 1), (3 / 4, 4 / 3))
        assert _crop(height, width, generator) == tuple(expected)
