"""BlackVIP: a prompt on the image, drawn by a small decoder (Oh et al., CVPR 2023; github.com/changdaeoh/BlackVIP).

    x̃ = clip(x + p_eps · decoder_w([encoder(x); trigger]))

The encoder is frozen and the user's own; the decoder (`cbbt.methods.parts.image_decoder`, 9,920
numbers at 224 pixels) is moved by SPSA with gradient correction, an accelerated
step: with the estimate ĝ of step k = 1, 2, …

    m ← β m + ĝ  (m = 0 at first)        w ← w − a_k (ĝ + β m)

Each perturbed decoder prompts the whole batch, so a step asks 10 losses and
10 · batch images. `blackvip` has the published encoder, ViT-B/16 MAE
("vit_base_patch16_224.mae" of timm), and needs its weights in a file; `blackvip_pca` has
principal components of the shots in its place.

Repaired: the released norms keep running statistics to which perturbed decoders add; here
a pass uses the statistics of its own batch, and the deployed decoder those of one clean
pass over the shots. No autocast, in whose 16 bits differences of losses drown.

Changed: the encoder gets pixels normalised as in its own training, in the released code
those normalised for CLIP; its vector is taken after its last norm, there before it.
The released code crops (0.08 to 1 of the area) and mirrors each batch at random; here the
shots are as at test time, whatever the run's `augmentation`, and the encoder reads each once.

What a loss query scores: one decoder on a batch of 128 shots, or of all if they are fewer,
whose images are encoded anew for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cbbt.adapters import IdentityAdapter
from cbbt.box.memory import chunk_size
from cbbt.checks import check_ranges, check_types
from cbbt.learning.fitting import Classifier, Fitted
from cbbt.learning.search import search
from cbbt.methods.parts.image_decoder import ImageDecoder
from cbbt.methods.parts.image_encoders import PrincipalComponents, TimmEncoder
from cbbt.methods.parts.spsa import Gains, spsa_gradient
from cbbt.methods.parts.start import start_text
from cbbt.seeding import batch_rows, generator_for


@dataclass(frozen=True)
class Settings:
    """BlackVIP's published constants; where those differ by data set, their range is named."""

    encoder: str = "vit_base_patch16_224.mae"  # or another model of timm
    encoder_weights: str = ""  # local file of the model's
    encoder_width: int = 16  # principal components: more of them tell the shots apart, and no more
    p_eps: float = 1.0  # strength of the prompt, in normalised pixel values: 0.2 to 1
    averages: int = 5  # pairs of losses in an estimate
    a: float = 0.01
    c: float = 0.01  # 0.005 to 0.02
    gamma: float = 0.1  # or 0.2
    beta: float = 0.9  # 0.3 to 0.95
    batch: int = 128
    steps: int = 5000  # of 10 loss queries: what 5,000 epochs are on EuroSAT

    def __post_init__(self):
        check_types(self)
        at_least = dict.fromkeys(("encoder_width", "averages", "batch", "steps"), 1) | {"gamma": 0, "beta": 0}
        check_ranges(self, at_least, positive=("p_eps", "a", "c"))
        if (self.encoder == "pca") != isinstance(self, PcaSettings):
            raise ValueError(f"the encoder 'pca' is that of blackvip_pca, every other one of blackvip, got {self.encoder!r}")
        if self.encoder != "pca" and not self.encoder_weights:
            raise ValueError(
                f"encoder {self.encoder!r} needs encoder_weights, a local file: nothing is downloaded; "
                "blackvip_pca does without, with principal components of the shots"
            )


@dataclass(frozen=True)
class PcaSettings(Settings):
    """`blackvip_pca`: an encoder that needs nothing but the shots."""

    encoder: str = "pca"


def fit(box, support, config, session) -> Fitted:
    return search(box, support, config, session, BlackVip(box, support, config), config.settings.steps)


class BlackVip:
    """The algorithm, step by step (see `cbbt.learning.search.Searcher`)."""

    def __init__(self, box, support, config):
        if not support.pixels:
            raise ValueError("BlackVIP changes images: the support must hold the pixels of at least one shot")
        self.box, self.support, self.config, self.settings = box, support, config, config.settings
        s = self.settings
        if s.encoder == "pca":
            self.encoder = PrincipalComponents(support.pixels, s.encoder_width, box.device)
        else:
            self.encoder = TimmEncoder(s.encoder, s.encoder_weights, box.preprocess_config, box.device)
        self.codes = torch.cat([self.encoder(batch.to(box.device)) for batch in support.pixels.batches()])
        self.decoder = ImageDecoder(box.image_size, self.codes.shape[1])
        self.w = self.decoder.initial(generator_for(config.seed, "decoder")).to(box.device)
        self.momentum = torch.zeros_like(self.w)
        self.gains = Gains(s.a, s.c, gamma=s.gamma)
        self.text = start_text(box, support, config)
        mean, std = (torch.tensor(box.preprocess_config[key], device=box.device)[:, None, None] for key in ("mean", "std"))
        self.black, self.white = -mean / std, (1 - mean) / std  # pixel values 0 and 1, normalised
        self.batch = min(s.batch, len(support.labels))
        asked = 2 * s.averages
        self.cost = {"loss_queries": asked, "images": asked * self.batch}
        # Of a prompted pixel live at once: some ten maps of three channels.
        self.together = chunk_size(box.device, 10 * 4 * self.batch * 3 * box.image_size**2, most=asked)

    def prompted(self, points, pixels, codes, statistics=None) -> torch.Tensor:
        """Images (N, B, 3, H, W) that N decoders (N, d) make of images (B, 3, H, W) with vectors `codes` (B, width)."""
        images = pixels + self.settings.p_eps * self.decoder(points, codes, statistics)
        return images.clamp(self.black, self.white)

    def losses(self, points: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Cross-entropy (N,) of N decoders (N, d) on the shots `rows`."""
        pixels = self.support.pixels[rows].to(self.box.device)
        rows = rows.to(self.box.device)
        losses = []
        for part in points.split(self.together):
            features = self.box.encode_images(self.prompted(part, pixels, self.codes[rows]).flatten(0, 1))
            labels = self.support.labels[rows]
            losses += [self.box.losses(self.text[None], own, labels) for own in features.view(len(part), len(rows), -1)]
        return torch.cat(losses)

    def step(self, index: int, steps: int) -> dict:
        s, k = self.settings, index + 1
        rows = batch_rows(self.config.seed, index, len(self.support.labels), s.batch)
        estimate = spsa_gradient(
            lambda points: self.losses(points, rows), self.w, s.averages, self.gains.size(k), self.config.seed, k
        )
        self.momentum = s.beta * self.momentum + estimate.gradient
        self.w = self.w - self.gains.rate(k) * (estimate.gradient + s.beta * self.momentum)
        return {"train_loss": estimate.base_loss, "gradient_norm": estimate.gradient.norm().item()}

    def parameters(self) -> dict[str, torch.Tensor]:
        return {"w": self.w}

    def classifier(self, box, parameters) -> Classifier:
        w = parameters["w"]
        statistics = self.decoder.statistics(w, self.codes, self.batch)

        def image_prompt(box, pixels):
            return box.encode_images(self.prompted(w[None], pixels, self.encoder(pixels), statistics)[0], normalize=False)

        return Classifier(self.text, IdentityAdapter(), box.logit_scale, image_prompt=image_prompt)

    def state(self) -> dict[str, torch.Tensor]:
        return {"w": self.w, "momentum": self.momentum}

    def restore(self, state) -> None:
        self.w, self.momentum = state["w"], state["momentum"]
