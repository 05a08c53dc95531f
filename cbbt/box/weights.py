"""Weights named by `pretrained`: the file, and the preprocessing and activation it was trained with.

A weights file holds neither the mean, standard deviation and resizing of its images nor
its activation, and the published tags of one architecture differ in them. With the wrong
ones every number is wrong and nothing looks broken, so a file is accepted only if they are
known: from a tag given with it ("tag@file"), from the `open_clip_config.json` beside it,
from the architecture's tags if all agree (a TorchScript archive shows its activation,
which leaves fewer tags), or because the architecture has no tag.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from dataclasses import asdict
from pathlib import Path

import lazy_loader
import torch

open_clip = lazy_loader.load("open_clip")
timm = lazy_loader.load("timm")

SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
CONFIG = "open_clip_config.json"  # the name that open_clip uses on the hub
# What TorchScript archives hold besides weights.
ARCHIVE_EXTRAS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
# Parts of an architecture's description that matter only in training.
TRAINING_ONLY = ("patch_dropout", "timm_drop", "timm_drop_path", "timm_model_pretrained", "hf_model_pretrained")
CHOICES = {"interpolation": ("bicubic", "bilinear"), "resize_mode": ("shortest", "longest", "squash")}
PREPROCESSING = ("mean", "std", *CHOICES)
HUB = f"take open_clip_model.safetensors (or open_clip_pytorch_model.bin) and {CONFIG} from its page on the Hugging Face hub"


class ModelError(ValueError):
    """A model name or weights that cannot be used; the message names the choices."""


def weights_file(pretrained: str | Path | None) -> Path | None:
    """The file that `pretrained` ("file", "folder" with one file of weights, "tag@file", "tag@folder") names, or None."""
    files = [] if pretrained is None else _files(_tag_and_path(pretrained)[1])
    return files[0] if len(files) == 1 else None


def _tag_and_path(pretrained) -> tuple[str | None, str]:
    path = os.path.expanduser(str(pretrained))
    tag, at, rest = path.partition("@")
    return (tag, os.path.expanduser(rest)) if at and not os.path.exists(path) else (None, path)


def _files(path: str) -> list[Path]:
    """The file itself, or the weights files in a folder."""
    if os.path.isdir(path):
        return sorted(file for file in Path(path).glob("[!.]*") if file.suffix.lower() in SUFFIXES)
    return [Path(path)] if os.path.isfile(path) else []


def find_weights(name: str, pretrained: str | Path) -> tuple[Path, dict]:
    """The file, downloaded if a tag is given, and what its weights were trained with.

    The latter: `quick_gelu` and, where known, keys of open_clip's PreprocessCfg. Raises ModelError.
    """
    tags = {tag: _tag_training(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)}
    if str(pretrained) in tags:
        return _download(name, str(pretrained)), tags[str(pretrained)]
    tag, path = _tag_and_path(pretrained)
    files, choices = _files(path), f"tag of {name!r}; tags: {', '.join(tags) or 'none'}"
    if os.path.isdir(path) and len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise ModelError(f"folder {path} should hold one file of weights ({', '.join(SUFFIXES)}), got {found}: name the file")
    if not files:
        hub = f"; {HUB}" if re.match(r"hf[-_]hub:|https?:|[\w.-]+/[\w.-]+$", path) and not path.endswith(SUFFIXES) else ""
        raise ModelError(f"pretrained={str(pretrained)!r} is neither a file nor a {choices}{hub}")
    if tag is not None and tag not in tags:
        raise ModelError(f"pretrained={str(pretrained)!r}: {tag!r} is no {choices}")
    return files[0], _training(name, files[0], tag, tags)


def _download(name: str, tag: str) -> Path:
    try:
        return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(name, tag)))
    except Exception as error:  # the hub's client raises many kinds
        raise ModelError(
            f"could not download {tag!r} for {name!r}: {error}. "
            f"Fetch the file on a machine with internet and pass pretrained='{tag}@FILE'"
        ) from error


def _tag_training(name: str, tag: str) -> dict:
    config = open_clip.get_pretrained_cfg(name, tag)
    known = {key: config[key] for key in PREPROCESSING if config.get(key) is not None}
    return {"quick_gelu": bool(config.get("quick_gelu"))} | known


def _training(name: str, path: Path, tag: str | None, tags: dict[str, dict]) -> dict:
    """What the weights in a file were trained with, or ModelError if that is unknown."""
    code = _activation_in_code(path) if is_torchscript(path) else {}
    config = path.with_name(CONFIG)
    if tag is not None:
        claims = {tag: tags[tag]}
    elif config.is_file():
        claims = {CONFIG: _read_config(config, name)}
    elif not tags:
        return {"quick_gelu": open_clip.get_model_config(name).get("quick_gelu", False)} | code
    else:
        claims = tags
    fitting = {source: claim for source, claim in claims.items() if claim == claim | code}
    if not fitting:
        computed = "QuickGELU" if code["quick_gelu"] else "GELU"
        raise ModelError(f"the archive {path} uses {computed}, but {', '.join(claims)} of {name!r} the other activation")
    first, *others = fitting.values()
    differing = [key for key in first if any(other.get(key) != first[key] for other in others)]
    if differing:
        raise ModelError(
            f"{path} does not say what it was trained with, and the tags of {name!r} differ in {', '.join(differing)}: "
            f"use pretrained='TAG@{path}' with one of {', '.join(fitting)}, or put its {CONFIG} beside it"
        )
    return first


def _read_config(path: Path, name: str) -> dict:
    """The content of a configuration in open_clip's hub format; ModelError if it is broken or for another architecture."""
    own = open_clip.get_model_config(name)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        model, images = config["model_cfg"], config["preprocess_cfg"]
        other = [key for key in ("embed_dim", "multimodal_cfg") if model.get(key) != own.get(key)]
        for part, kind in (("vision_cfg", open_clip.CLIPVisionCfg), ("text_cfg", open_clip.CLIPTextCfg)):
            theirs, ours = (asdict(kind(**cfg[part])) for cfg in (model, own))
            other += [f"{part}.{key}" for key in ours if key not in TRAINING_ONLY and theirs[key] != ours[key]]
        training = {
            "quick_gelu": bool(model.get("quick_gelu", False)),
            **{key: tuple(map(float, images[key])) for key in ("mean", "std")},
            "interpolation": images.get("interpolation") or "bicubic",  # open_clip's default
            "resize_mode": images.get("resize_mode") or "shortest",
        }
        known = all(training[key] in choices for key, choices in CHOICES.items())
        if not (known and len(training["mean"]) == len(training["std"]) == 3 and min(training["std"]) > 0):
            raise ValueError(training)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"cannot use {path}: expected open_clip's model_cfg and preprocess_cfg, got {error!r}") from error
    if other:
        raise ModelError(f"{path} is for another architecture than {name!r}: {', '.join(other)} differ")
    return training


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive that contains code, like OpenAI's."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in entry for entry in archive.namelist())


def _activation_in_code(path: Path) -> dict:
    """Whether an archive calls GELU; QuickGELU is written out with a sigmoid."""
    with zipfile.ZipFile(path) as archive:
        code = (archive.read(entry) for entry in archive.namelist() if "/code/" in entry and entry.endswith(".py"))
        return {"quick_gelu": not any(b"torch.gelu(" in text for text in code)}


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file, without training wrappers. Raises ModelError."""
    try:
        if is_torchscript(path):
            state = torch.jit.load(path, map_location="cpu").state_dict()
            return {key: value for key, value in state.items() if key not in ARCHIVE_EXTRAS}
        state = timm.models.load_state_dict(str(path), use_ema=False, weights_only=True)
        # torch.compile's prefix may occur at any depth, DistributedDataParallel's only in front.
        state = {re.sub(r"^(module\.)+", "", key.replace("_orig_mod.", "")): value for key, value in state.items()}
    except Exception as error:  # torch, pickle, zip and safetensors each raise their own
        pointer = path.read_bytes()[:40].startswith(b"version https://git-lfs")
        reason = "it is a Git LFS pointer, run git lfs pull" if pointer else str(error) or repr(error)
        raise ModelError(f"cannot read weights from {path}: {reason}") from error
    if other := [key for key, value in state.items() if not isinstance(value, torch.Tensor)]:
        raise ModelError(f"{path} should hold weights alone, as model.state_dict() gives them, got {', '.join(other[:5])}")
    if any(key.startswith(("text_model.", "vision_model.")) for key in state):
        raise ModelError(f"{path} holds weights in the form of Hugging Face's transformers; {HUB}, or pretrained='openai'")
    return state
