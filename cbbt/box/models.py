"""Loading the models that are served as black boxes.

Two kinds of name: "mini", the embedded model of `cbbt.mini_clip`, and every
architecture that open_clip knows (Ilharco et al., 2021), with weights from a
published tag, from a local file, or random. Nothing outside `cbbt.box.blackbox`
should import this module: whoever holds a `LoadedModel` stands behind the wall.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import re
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import lazy_loader
import torch

open_clip = lazy_loader.load("open_clip")  # takes seconds to import: not before a model is loaded

MINI = "mini"
# What TorchScript archives hold beside weights.
ARCHIVE_EXTRAS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


class ModelError(ValueError):
    """A model name or weights that cannot be served; the text names the choices."""


@dataclass
class LoadedModel:
    """A frozen fp32 model with the tokenizer and the image transform it was trained with."""

    name: str
    model: torch.nn.Module
    tokenizer: Callable[[list[str]], torch.Tensor]
    preprocess_config: dict  # keys of open_clip's PreprocessCfg: size, mean, std, …

    @cached_property
    def preprocess(self):
        """The test-time transform: PIL image → float tensor (3, H, W)."""
        return open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**self.preprocess_config), is_train=False)

    def fingerprint(self) -> str:
        """Sixteen hex digits over name, preprocessing and every weight."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:  # frozen weights: half a second of hashing, once
        digest = hashlib.sha256(f"{self.name} {sorted(self.preprocess_config.items())}".encode())
        for key, tensor in sorted(self.model.state_dict().items()):
            digest.update(key.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]


def load_model(name: str, pretrained: str | Path | None, device: torch.device) -> LoadedModel:
    """Build and freeze a model in fp32.

    `pretrained` is "default" (the shipped weights of "mini", OpenAI's elsewhere),
    a tag of open_clip, a local file (state dict as .pt, .bin or .safetensors, or
    OpenAI's TorchScript archive), or None for random weights, the same each time.
    Raises `ModelError` for an unknown name or tag, or weights that do not fit.
    """
    if name == MINI:
        loaded = _load_mini(pretrained)
    else:
        loaded = _load_open_clip(name, "openai" if pretrained == "default" else pretrained)
    loaded.model.eval().requires_grad_(False).to(device=device, dtype=torch.float32)
    return loaded


def _load_mini(pretrained) -> LoadedModel:
    from cbbt.mini_clip.model import MiniTokenizer, build_mini_clip, load_mini_clip

    if pretrained is None:
        model = _with_random_weights(build_mini_clip)
    else:
        try:
            model = load_mini_clip(None if pretrained == "default" else Path(pretrained).expanduser())
        except (OSError, ValueError) as error:
            raise ModelError(f"{error} (pretrained for {MINI!r} is 'default', a file, or None for random weights)") from error
    return LoadedModel(MINI, model, MiniTokenizer(), dict(model.visual.preprocess_cfg))


def _load_open_clip(name: str, pretrained) -> LoadedModel:
    known = open_clip.list_models()
    if name not in known:
        plain = {_plain(choice): choice for choice in [*known, MINI]}
        near = [plain[key] for key in difflib.get_close_matches(_plain(str(name)), plain, n=5, cutoff=0.4)]
        raise ModelError(
            f"unknown backbone {name!r}; nearest: {', '.join(near) or 'none'}; choose {MINI!r} or one of open_clip.list_models()"
        )
    text = open_clip.get_model_config(name)["text_cfg"]
    if foreign := text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        raise ModelError(
            f"backbone {name!r} reads text by {foreign}, without CLIP's tokens: no context can be put into its prompts; "
            "choose one whose text tower is CLIP's own, such as RN50 or ViT-B-16"
        )
    path, quick_gelu, preprocess = _find_weights(name, pretrained)
    try:
        model = _with_random_weights(lambda: open_clip.create_model(name, force_quick_gelu=quick_gelu, pretrained_text=False))
        tokenizer = open_clip.get_tokenizer(name)
    except (OSError, RuntimeError, ImportError) as error:
        raise ModelError(f"backbone {name!r} needs files that could not be had: {error}") from error
    if path is not None:
        _load_strictly(model, path, name)
    config = asdict(open_clip.transform.PreprocessCfg()) | dict(model.visual.preprocess_cfg) | preprocess
    return LoadedModel(name, model, tokenizer, config)


def _plain(name: str) -> str:
    """A name as people remember it: without case and separators."""
    return re.sub(r"[\W_]", "", name.lower())


def _with_random_weights(build) -> torch.nn.Module:
    """Call `build` with the same random stream each time, leaving the caller's alone."""
    logging.disable(logging.WARNING)  # open_clip warns of random weights, also where others follow
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build()
    finally:
        logging.disable(logging.NOTSET)


def _find_weights(name: str, pretrained) -> tuple[Path | None, bool, dict]:
    """(file or None, whether QuickGELU must be used, preprocessing overrides)."""
    if pretrained is None:
        return None, False, {}
    own_quick_gelu = open_clip.get_model_config(name).get("quick_gelu", False)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if str(pretrained) in tags:
        tag = open_clip.get_pretrained_cfg(name, str(pretrained))
        quick_gelu = bool(tag.get("quick_gelu", False)) or pretrained == "openai"
        if own_quick_gelu and not quick_gelu:
            raise ModelError(f"weights {pretrained!r} were trained with GELU, but {name!r} uses QuickGELU")
        try:
            path = Path(open_clip.download_pretrained(tag))
        except Exception as error:  # the hub's client raises many kinds
            raise ModelError(
                f"could not download {pretrained!r} for {name!r}: {error}. "
                f"Fetch the file on a machine with internet and pass its path as pretrained"
            ) from error
        keys = ("mean", "std", "interpolation", "resize_mode")
        return path, quick_gelu, {key: tag[key] for key in keys if tag.get(key) is not None}
    path = Path(str(pretrained)).expanduser()
    if not path.is_file():
        raise ModelError(
            f"pretrained={str(pretrained)!r} is neither a file nor a tag of {name!r}; tags: {', '.join(tags) or 'none'}"
        )
    if _is_torchscript(path):  # OpenAI's archives, QuickGELU, or another's; the code in it tells
        quick_gelu = not _computes_gelu(path)
        if own_quick_gelu and not quick_gelu:
            raise ModelError(f"weights {path} were trained with GELU, but {name!r} uses QuickGELU")
        return path, quick_gelu, {}
    if not own_quick_gelu and "openai" in tags:
        warnings.warn(
            f"{path.name} does not say its activation; {name!r} uses GELU. For OpenAI's weights use "
            f"pretrained='openai', their original archive, or the name '{name}-quickgelu'",
            stacklevel=4,
        )
    return path, False, {}


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in entry for entry in archive.namelist())


def _computes_gelu(path: Path) -> bool:
    """Whether the code of a TorchScript archive calls GELU; QuickGELU is written out with a sigmoid."""
    with zipfile.ZipFile(path) as archive:
        code = (archive.read(entry) for entry in archive.namelist() if "/code/" in entry and entry.endswith(".py"))
        return any(b"torch.gelu(" in text for text in code)


def _load_strictly(model, path: Path, name: str) -> None:
    """Load every weight or refuse: nothing is resized, skipped or left random."""
    try:
        if _is_torchscript(path):
            state = torch.jit.load(path, map_location="cpu").state_dict()
            state = {key: value for key, value in state.items() if key not in ARCHIVE_EXTRAS}
        else:
            state = open_clip.factory.load_state_dict(str(path))
        state = open_clip.convert.convert_state_dict(model, state)
    except Exception as error:  # torch, pickle, zip and safetensors each raise their own
        raise ModelError(f"cannot read weights from {path}: {error}") from error
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
    if missing or surplus or wrong:
        parts = [
            f"{title}: {', '.join(entries[:3])}{f' and {len(entries) - 3} more' if len(entries) > 3 else ''}"
            for title, entries in (("missing", missing), ("not in the model", surplus), ("shape", sorted(wrong)))
            if entries
        ]
        raise ModelError(f"weights {path} do not fit {name!r}; " + "; ".join(parts))
    model.load_state_dict({key: value.reshape(own[key].shape) for key, value in state.items()})
