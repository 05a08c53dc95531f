"""Loading of the models behind black boxes.

Two kinds of name: "mini" and "photo", the models that the kit trained itself (`cbbt.mini_clip`,
`cbbt.photo_clip`), and every architecture that open_clip knows (Ilharco et al., 2021), with weights
from a published tag, from a local file (`cbbt.box.weights`), or random. Nothing outside
`cbbt.box.blackbox` should import this module: a `LoadedModel` is the model itself, with weights
and gradients.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import lazy_loader
import torch

from cbbt.box.weights import HUB, ModelError, find_weights, read_weights, weights_file

open_clip = lazy_loader.load("open_clip")  # slow to import: deferred until a model is loaded


@dataclass
class LoadedModel:
    """A frozen fp32 model with the tokenizer and the image transform it was trained with."""

    name: str
    model: torch.nn.Module
    tokenizer: Callable[[list[str]], torch.Tensor]
    preprocess_config: dict  # keys of open_clip's PreprocessCfg: size, mean, std, …

    def fingerprint(self) -> str:
        """Sixteen hex digits over name, activation, preprocessing and every weight."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:  # cached: hashing takes half a second, and the weights are frozen
        quick = " QuickGELU" if any(type(part).__name__ == "QuickGELU" for part in self.model.modules()) else ""
        digest = hashlib.sha256(f"{self.name}{quick} {sorted(self.preprocess_config.items())}".encode())
        for key, tensor in sorted(self.model.state_dict().items()):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]


def transform_of(**preprocess_config):
    """The test-time transform of a configuration: PIL image → float tensor (3, H, W)."""
    return open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**preprocess_config), is_train=False)


def load_model(name: str, pretrained: str | Path | None, device: torch.device) -> LoadedModel:
    """Build and freeze a model in fp32.

    `pretrained` is "default" (the shipped weights of "mini" and "photo", OpenAI's elsewhere),
    a tag of open_clip, a local file or a folder that holds one (state dict as .pt, .bin
    or .safetensors, or OpenAI's TorchScript archive), "tag@file" for a file that was
    trained as the tag says, or None for random weights, the same each time.
    Raises `ModelError` for an unknown name or tag, weights that do not fit, or a file
    whose preprocessing or activation is unknown.
    """
    if name in OWN:
        loaded = _load_own(name, pretrained)
    else:
        loaded = _load_open_clip(name, "openai" if pretrained == "default" else pretrained)
    loaded.model.eval().requires_grad_(False).to(device=device, dtype=torch.float32)
    return loaded


def _mini(weights: Path | None, random: bool):
    from cbbt.mini_clip.model import MiniTokenizer, build_mini_clip, load_mini_clip

    model = _with_random_weights(build_mini_clip) if random else load_mini_clip(weights)
    return model, MiniTokenizer()


def _photo(weights: Path | None, random: bool):
    from cbbt.photo_clip.model import PhotoTokenizer, build_photo_clip, load_photo_clip, read_photo_clip

    if not random:
        return load_photo_clip(weights)
    tokenizer = PhotoTokenizer(read_photo_clip()["vocabulary"].tolist())
    return _with_random_weights(lambda: build_photo_clip(tokenizer.vocab_size)), tokenizer


OWN = {"mini": _mini, "photo": _photo}  # trained by the kit itself, with weights that it ships


def _load_own(name: str, pretrained) -> LoadedModel:
    file = None if pretrained in (None, "default") else weights_file(pretrained) or Path(str(pretrained))
    try:
        model, tokenizer = OWN[name](file, random=pretrained is None)
    except (OSError, ValueError) as error:
        choices = f" (pretrained for {name!r} is 'default', a file, or None for random weights)" if file else ""
        raise ModelError(f"{error}{choices}") from error
    return LoadedModel(name, model, tokenizer, dict(model.visual.preprocess_cfg))


def _load_open_clip(name: str, pretrained) -> LoadedModel:
    known = open_clip.list_models()
    if name not in known:
        if re.match(r"[\w-]+:|[\w.-]+/(?=.*[a-z]{3})[\w.-]+$", str(name)) and str(name).replace("/", "-") not in known:
            raise ModelError(  # hf-hub:org/model, org/model
                f"backbone {name!r} names weights, not an architecture: choose one of open_clip.list_models(), such as "
                f"'ViT-B-32', as backbone; {HUB}, and pass the file or its folder as pretrained"
            )
        plain = {_plain(choice): choice for choice in [*known, *OWN]}
        own = ", ".join(map(repr, OWN))
        near = [plain[key] for key in difflib.get_close_matches(_plain(str(name)), plain, n=5, cutoff=0.4)]
        raise ModelError(
            f"unknown backbone {name!r}; nearest: {', '.join(near) or 'none'}; choose {own} or one of open_clip.list_models()"
        )
    text = open_clip.get_model_config(name)["text_cfg"]
    if foreign := text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        raise ModelError(
            f"backbone {name!r} reads text with {foreign}, not CLIP's tokenizer, so its prompts cannot hold a context; "
            "choose one whose text tower is CLIP's own, such as RN50 or ViT-B-16"
        )
    path, training = (None, {}) if pretrained is None else find_weights(name, pretrained)
    quick_gelu = training.pop("quick_gelu", False)
    if path is not None and open_clip.get_model_config(name).get("quick_gelu", False) and not quick_gelu:
        raise ModelError(f"weights {path} were trained with GELU, but {name!r} uses QuickGELU")
    try:
        model = _with_random_weights(lambda: open_clip.create_model(name, force_quick_gelu=quick_gelu, pretrained_text=False))
        tokenizer = open_clip.get_tokenizer(name)
    except (OSError, RuntimeError, ImportError) as error:
        raise ModelError(f"backbone {name!r} needs files that could not be loaded: {error}") from error
    if path is not None:
        _load_strictly(model, path, name)
    config = asdict(open_clip.transform.PreprocessCfg()) | dict(model.visual.preprocess_cfg) | training
    return LoadedModel(name, model, tokenizer, config)


def _plain(name: str) -> str:
    """A name without case and separators, for matching."""
    return re.sub(r"[\W_]", "", name.lower())


def _with_random_weights(build) -> torch.nn.Module:
    """Call `build` with the same random stream each time, without touching the caller's."""
    logging.disable(logging.WARNING)  # open_clip warns about random weights even if others are loaded next
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build()
    finally:
        logging.disable(logging.NOTSET)


def _load_strictly(model, path: Path, name: str) -> None:
    """Load every weight or refuse: nothing is resized, skipped or left random."""
    state = read_weights(path)
    try:
        state = open_clip.convert.convert_state_dict(model, state)
    except Exception as error:  # whatever timm's filters raise
        raise ModelError(f"cannot convert weights from {path}: {error}") from error
    own = model.state_dict()
    if hasattr(model, "text") and "positional_embedding" in state:
        state = open_clip.factory.convert_to_custom_text_state_dict(state)
    missing = sorted(own.keys() - state.keys())
    surplus = sorted(state.keys() - own.keys())
    wrong = [
        f"{key}: expected {tuple(own[key].shape)}, got {tuple(state[key].shape)}"
        for key in own.keys() & state.keys()
        if own[key].numel() != state[key].numel() or (own[key].ndim > 1 and own[key].shape != state[key].shape)
    ]
    broken = sorted(key for key in own.keys() & state.keys() if not state[key].isfinite().all())
    if missing or surplus or wrong or broken:
        parts = [
            f"{title}: {', '.join(entries[:3])}{f' and {len(entries) - 3} more' if len(entries) > 3 else ''}"
            for title, entries in (
                ("missing", missing),
                ("not in the model", surplus),
                ("shape", sorted(wrong)),
                ("not finite", broken),
            )  # fmt: skip
            if entries
        ]
        raise ModelError(f"weights {path} do not fit {name!r}; " + "; ".join(parts))
    model.load_state_dict({key: value.reshape(own[key].shape) for key, value in state.items()})
