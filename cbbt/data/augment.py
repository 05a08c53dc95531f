"""Training-time augmentation, each view from a generator of its own.

"cbbt" is the released code's (facts read in github.com/guozix/cbbt): at random
either a resized crop (scale 0.5–1, bicubic) or the whole image squashed to the
square with one rectangle of a random colour. The rectangle's centre is any pixel and its
side 0.4 of the image's; it is clipped at the border, so the visible side is 0.2 to 0.4.
Then a horizontal flip with probability 0.5. "crop" is the resized crop alone, with the flip.
"none" is the test-time transform. Images whose class a flip would change are not flipped.
"""

from __future__ import annotations

import math

import lazy_loader
import numpy as np
import torch

open_clip = lazy_loader.load("open_clip")
torchvision = lazy_loader.load("torchvision")

AUGMENTATIONS = ("cbbt", "crop", "none")
RECTANGLE = 0.4  # side of the coloured rectangle before clipping, as a fraction of the image's


class Augmentation:
    """Turns a PIL image into one view (3, H, W), normalised for a model.

    Args:
        preprocess_config: a box's `preprocess_config`. kind: one of `AUGMENTATIONS`.
        mirror: whether a flipped image keeps its class.

    Raises ValueError for another kind.
    """

    def __init__(self, preprocess_config: dict, kind: str, mirror: bool):
        if kind not in AUGMENTATIONS:
            raise ValueError(f"augmentation {kind!r} is unknown, choose from {', '.join(AUGMENTATIONS)}")
        config = open_clip.transform.PreprocessCfg(**preprocess_config)
        self.kind, self.mirror, self.mean, self.std = kind, mirror, config.mean, config.std
        self.side = config.size if isinstance(config.size, int) else config.size[0]
        self.test_transform = open_clip.transform.image_transform_v2(config, is_train=False)

    def __call__(self, image, generator: torch.Generator) -> torch.Tensor:
        """One view; all randomness comes from `generator`."""
        if self.kind == "none":
            return self.test_transform(image)
        side, transforms = self.side, torchvision.transforms
        TF = transforms.functional
        if self.kind == "crop" or _uniform(generator) < 0.5:
            top, left, height, width = _crop(image.height, image.width, generator)
            crop = TF.resized_crop(image, top, left, height, width, [side, side], transforms.InterpolationMode.BICUBIC)
            pixels = TF.to_tensor(crop)
        else:
            pixels = TF.to_tensor(TF.resize(image, [side, side], transforms.InterpolationMode.BILINEAR))
            rows, columns = (_stretch(side, generator) for _ in range(2))
            pixels[:, rows, columns] = torch.randint(256, (3, 1, 1), generator=generator) / 255
        if self.mirror and _uniform(generator) < 0.5:
            pixels = pixels.flip(-1)
        return TF.normalize(pixels, self.mean, self.std)


def example_views(task, preprocess_config: dict, kind: str, generator: torch.Generator, n: int = 10) -> list[np.ndarray]:
    """The first training shot of a task as pictures (H, W, 3) in [0, 1]: one by the test transform, then n − 1 views."""
    plain, augmented = (Augmentation(preprocess_config, each, task.mirror) for each in ("none", kind))
    image = task.train[0].image()
    views = [plain(image, generator)] + [augmented(image, generator) for _ in range(n - 1)]
    mean, std = (torch.tensor(preprocess_config[key]).view(3, 1, 1) for key in ("mean", "std"))
    return [(view * std + mean).clamp(0, 1).permute(1, 2, 0).numpy() for view in views]


def _uniform(generator: torch.Generator) -> float:
    return torch.rand((), generator=generator).item()


def _stretch(side: int, generator: torch.Generator) -> slice:
    """A stretch around a random pixel, clipped to the image; both ends are included, as in PIL's rectangles."""
    middle, half = int(torch.randint(side, (), generator=generator)), round(RECTANGLE * side) // 2
    return slice(max(middle - half, 0), middle + half + 1)


def _crop(height: int, width: int, generator: torch.Generator, scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3)):
    """A random crop as in torchvision's RandomResizedCrop, from an explicit generator."""
    for _ in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * _uniform(generator))
        aspect = math.exp(math.log(ratio[0]) + (math.log(ratio[1]) - math.log(ratio[0])) * _uniform(generator))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(_uniform(generator) * (height - h + 1))
            left = int(_uniform(generator) * (width - w + 1))
            return top, left, h, w
    # A very elongated image: the centre, as wide or high as the ratio allows.
    w, h = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
    return (height - h) // 2, (width - w) // 2, h, w
