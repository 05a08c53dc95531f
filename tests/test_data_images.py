"""Images as users have them, and what the augmentations make of them."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from cbbt.data.augment import AUGMENTATIONS, Augmentation, _crop
from cbbt.data.task import DataError, Item

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


RAMP = np.linspace(0, 1, 256).reshape(16, 16)
EIGHT = np.arange(256, dtype=np.uint8).reshape(16, 16)  # the ramp in 8 bits


DEEP = {
    "16.png": lambda path: Image.fromarray((RAMP * 65535).round().astype(np.uint16)).save(path),
    "16.tif": lambda path: Image.fromarray((RAMP * 65535).round().astype(np.uint16)).save(path),
    "16big.tif": lambda path: Image.frombytes("I;16B", (16, 16), (RAMP * 65535).round().astype(">u2").tobytes()).save(path),
    "16.pgm": lambda path: path.write_bytes(b"P5 16 16 65535\n" + (RAMP * 65535).round().astype(">u2").tobytes()),
    "32.tif": lambda path: Image.fromarray((RAMP * 65535).round().astype(np.int32)).save(path),
    "float.tif": lambda path: Image.fromarray(RAMP.astype(np.float32)).save(path),
    "grey.png": lambda path: Image.fromarray(EIGHT).save(path),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_images_of_ones_own_keep_their_shades(tmp_path, name):
    DEEP[name](tmp_path / name)
    image = Item(0, "a", path=tmp_path / name, own=True).image()
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), np.stack([EIGHT] * 3, -1))


@pytest.mark.parametrize(
    "values, ending, message",
    [
        (RAMP.astype(np.float32) * 255, "tif", "values run from 0 to 255, .* unknown: expected 0 to 1, with .* above 0.0625"),
        (RAMP.astype(np.float32) - 0.5, "tif", "values run from -0.5 to 0.5"),
        (np.full((4, 4), np.nan, np.float32), "tif", "values run from nan to nan"),
        ((RAMP * 4095).astype(np.uint16), "png", "values run from 0 to 4095, .* expected 0 to 65535, with .* above 4095.94"),
        ((RAMP * 255).astype(np.int32), "tif", "values run from 0 to 255"),
        ((RAMP * 2**30).astype(np.int32), "tif", "convert the image to 8 bits"),
    ],
)
def test_an_unknown_range_is_refused_by_name(tmp_path, values, ending, message):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(values).save(path)
    with pytest.raises(DataError, match=f"cannot read image .*a.{ending}: its .*{message}"):
        Item(0, "a", path=path, own=True).image()
    assert Item(0, "a", path=path).image().size == values.shape  # a benchmark's is read as CoOp does


def test_black_stays_black(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "a.png")
    assert Item(0, "a", path=tmp_path / "a.png", own=True).image().getextrema() == ((0, 0),) * 3


@pytest.mark.parametrize("mode, ending", [("RGBA", "png"), ("RGBA", "webp"), ("LA", "png"), ("PA", "gif")])
def test_clear_parts_of_ones_own_images_lie_on_white(tmp_path, mode, ending):
    shown = []
    for number, hidden in enumerate([(200, 30, 90, 0), (0, 0, 0, 0)]):
        path = tmp_path / f"{number}.{ending}"
        options = {"lossless": True, "exact": True} if ending == "webp" else {}
        pixels = np.stack([EIGHT, 0 * EIGHT, 0 * EIGHT, 0 * EIGHT + 255], -1).astype(np.uint8)
        pixels[:, :8] = hidden
        Image.fromarray(pixels).convert("RGBA" if mode == "PA" else mode).save(path, **options)
        shown.append(np.asarray(Item(0, "a", path=path, own=True).image()))
    assert (shown[0][:, :8] == 255).all() and np.array_equal(*shown) and (shown[0][:, 8:, 1:] < 255).all()


@pytest.mark.parametrize("mode, transparency", [("P", 3), ("L", 0), ("RGB", (0, 0, 0)), ("1", 0)])
def test_a_clear_colour_lies_on_white(tmp_path, mode, transparency):
    picture = Image.fromarray(np.stack([0 * EIGHT] * 3, -1)).convert(mode)
    if mode == "P":
        picture = Image.fromarray(EIGHT * 0 + 3).convert("P")
    picture.save(tmp_path / "a.png", transparency=transparency)
    assert Item(0, "a", path=tmp_path / "a.png", own=True).image().getextrema() == ((255, 255),) * 3


@pytest.mark.parametrize("name", ["plain.png", "grey.png", "cmyk.jpg", "turned.jpg", "dot.png", "moving.gif"])
def test_plain_images_of_ones_own_are_read_as_coop_reads_them(tmp_path, name):
    SAVED[name](Image.fromarray(PIXELS), tmp_path / name)
    own, coops = (Item(0, "a", path=tmp_path / name, own=own).image() for own in (True, False))
    assert own.tobytes() == coops.tobytes()


def test_an_empty_file_is_said(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match="cannot read image .*a.png: the file is empty"):
        Item(0, "a", path=tmp_path / "a.png").image()


def views(image, generator, kind="cbbt", mirror=False, count=200):
    """Views with the normalisation undone, values from 0 to 1, (count, 3, 20, 20)."""
    make = Augmentation(CONFIG, kind, mirror)
    mean, std = (torch.tensor(CONFIG[key]).view(3, 1, 1) for key in ("mean", "std"))
    return torch.stack([make(image, generator) * std + mean for _ in range(count)])


def test_half_the_views_have_one_rectangle_of_one_colour(generator):
    """Around any of 20 pixels, four to either side; of those near the border less is seen."""
    drawn = views(Image.new("RGB", (36, 24), (255, 255, 255)), generator, count=1000)
    marked = (drawn < 0.999).any(dim=1)
    sizes = marked.sum(dim=(1, 2))
    assert 450 < (sizes > 0).sum() < 550
    stretches, colours = Counter(), set()
    for view, place in zip(drawn[sizes > 0], marked[sizes > 0]):
        (top, left), (bottom, right) = place.nonzero().aminmax(dim=0)
        inside = view[:, top : bottom + 1, left : right + 1]
        assert torch.equal(inside, inside[:, :1, :1].expand_as(inside))
        levels = 255 * inside[:, 0, 0]
        assert torch.allclose(levels, levels.round(), atol=1e-3)
        colours.add(tuple(levels.round().tolist()))
        stretches.update([(int(top), int(bottom)), (int(left), int(right))])
    assert len(colours) == int((sizes > 0).sum())
    assert set(stretches) == {(max(middle - 4, 0), min(middle + 4, 19)) for middle in range(20)}
    assert max(stretches.values()) < 2 * stretches.total() / 20  # no place is preferred


def test_outside_its_rectangle_the_whole_image_is_squashed(generator):
    image = Image.fromarray(PIXELS)
    squashed = transforms.Compose([transforms.Resize((20, 20)), transforms.ToTensor()])(image)
    agreeing = torch.isclose(views(image, generator), squashed, atol=1e-5).all(dim=1).sum(dim=(1, 2))
    assert 70 < (agreeing >= 400 - 81).sum() < 130 and agreeing.sort().values[0] < 50  # the others are crops


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
