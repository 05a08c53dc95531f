"""The small decoder from a vector to an image that BlackVIP learns.

Oh et al., CVPR 2023 (github.com/changdaeoh/BlackVIP). A vector and a learned
*trigger* fill a map of 32 channels; a stage doubles its side with a transposed
convolution of 2 × 2 and stride 2, channel by channel, mixes the channels (1 × 1),
normalises over the batch and applies GELU; a last transposed convolution gives
three channels. At 224 pixels: 7 → 224 in five doublings, 9,920 numbers.

A transposed convolution whose stride equals its kernel size never mixes neighbours: each
pixel becomes four. So a stage is one product of the list of all pixels with a matrix per
decoder; many decoders are evaluated at once, and the list becomes an image only at the end.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

CHANNELS = 32  # of the first map
LARGEST_START = 7  # its largest side
STAGES = [(64, 64), (64, 32), (32, 32), (32, 16)]  # channels after the doubling, after the mixing
TRIGGER = 0.1  # starts uniform in [0, 0.1]
NORM_EPS = 1e-5

Statistics = list[tuple[torch.Tensor, torch.Tensor]]  # per stage: mean and variance, each (N, channels)


class ImageDecoder:
    """Decoders as flat vectors (d,) of weights; this object holds only the shapes.

    For other image sizes: as many doublings as start from a side of 7 or less, the
    last stages of the published four (the first one repeated, if more are needed);
    what exceeds the image is cropped. Raises ValueError if a vector of
    `code_width` numbers does not fit into the first map.
    """

    def __init__(self, image_size: int, code_width: int):
        self.image_size = image_size
        self.doublings = max(1, math.ceil(math.log2(image_size / LARGEST_START)))
        self.start_side = math.ceil(image_size / 2**self.doublings)
        room = CHANNELS * self.start_side**2
        if code_width > room:
            raise ValueError(
                f"images of {image_size} pixels start from a map of {room} numbers: "
                f"the encoder may give at most that many, got {code_width}"
            )
        n = self.doublings - 1
        self.stages = ([STAGES[0]] * n + STAGES)[len(STAGES) :]
        self.shapes: dict[str, tuple[int, ...]] = {"trigger": (room - code_width,)}
        channels = CHANNELS
        for i, (middle, out) in enumerate(self.stages):
            spread = {f"spread{i}": (channels, middle // channels, 4), f"bias{i}": (middle,)}
            self.shapes |= spread | {f"mix{i}": (middle, out), f"scale{i}": (out,), f"shift{i}": (out,)}
            channels = out
        self.shapes["last"] = (channels, 3, 4)
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.size = sum(self.sizes)

    def initial(self, generator: torch.Generator) -> torch.Tensor:
        """Weights (d,) as PyTorch initialises such layers: uniform within 1/√fan, norms at one and zero."""
        parts = []
        for name, shape in self.shapes.items():
            kind = name.rstrip("0123456789")
            if kind == "trigger":
                parts.append(TRIGGER * torch.rand(shape, generator=generator))
            elif kind in ("scale", "shift"):
                parts.append(torch.full(shape, float(kind == "scale")))
            else:  # a bias has the bound of its layer's weights
                fan = math.prod(self.shapes[name.replace("bias", "spread")][1:])
                parts.append((2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(fan))
        return torch.cat([part.flatten() for part in parts])

    def __call__(self, points: torch.Tensor, codes: torch.Tensor, statistics: Statistics | None = None) -> torch.Tensor:
        """Images (N, B, 3, H, W) that N decoders (N, d) make from B vectors (B, code_width).

        The norms use the statistics of this batch, or those given. No running statistics
        are kept: a perturbed decoder does not affect the next one.
        """
        return self._decode(points, codes, statistics)[0]

    def statistics(self, weights: torch.Tensor, codes: torch.Tensor, batch: int) -> Statistics:
        """Statistics of the norms of one decoder (d,) in a clean pass over all `codes`: the mean over batches.

        A batch takes vectors at equal distances, because those of one class are often adjacent.
        """
        count = math.ceil(len(codes) / batch)
        passes = [self._decode(weights[None], codes[i::count], None)[1] for i in range(count)]
        return [tuple(torch.stack(moment).mean(dim=0) for moment in zip(*stage)) for stage in zip(*passes)]

    def _decode(self, points, codes, statistics) -> tuple[torch.Tensor, Statistics]:
        n, b, side = len(points), len(codes), self.start_side
        w = {name: part.view(n, *shape) for (name, shape), part in zip(self.shapes.items(), points.split(self.sizes, dim=1))}
        filled = torch.cat([codes.expand(n, -1, -1), w["trigger"][:, None].expand(-1, b, -1)], dim=2)
        x = filled.view(n, b, CHANNELS, side * side).mT.reshape(n, -1, CHANNELS)  # a list of pixels
        seen = []
        for i, (_, out) in enumerate(self.stages):
            spread, mix = w[f"spread{i}"], w[f"mix{i}"]
            each = torch.einsum("ncmk,ncmo->ncko", spread, mix.view(*spread.shape[:3], out))
            bias = (w[f"bias{i}"][:, None] @ mix).repeat(1, 1, 4)
            x = torch.baddbmm(bias, x, each.flatten(2)).view(n, -1, out)
            mean, variance = statistics[i] if statistics else (x.mean(dim=1), x.var(dim=1, unbiased=False))
            seen.append((mean, variance))
            factor = w[f"scale{i}"] * (variance + NORM_EPS).rsqrt()
            x = F.gelu(torch.addcmul((w[f"shift{i}"] - mean * factor)[:, None], x, factor[:, None]))
        x = x @ w["last"].mT.flatten(2)
        return self._picture(x, n, b), seen

    def _picture(self, x: torch.Tensor, n: int, b: int) -> torch.Tensor:
        """The list (N, pixels of the last map, 4 · 3) as images: each doubling has added a pair of bits to a pixel's place."""
        x = x.view(n, b, *[self.start_side] * 2, *[2, 2] * self.doublings, 3)
        rows, columns = range(2, x.ndim - 1, 2), range(3, x.ndim - 1, 2)
        side = self.start_side * 2**self.doublings
        picture = x.permute(0, 1, x.ndim - 1, *rows, *columns).reshape(n, b, 3, side, side)
        return picture[..., : self.image_size, : self.image_size]
