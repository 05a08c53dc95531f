"""What requests hold: JSON fields, tensors and encoded images; everything else is refused."""

import base64
import io
from typing import Annotated, Literal

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cbbt.box.prompts import POSITIONS
from cbbt.box.server.accounts import digest_of
from cbbt.box.wire import WireError, unpack

LARGEST_IMAGE = 64_000_000  # pixels of an encoded image
Text = Annotated[str, Field(min_length=1, max_length=2000)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=100_000)]


class Words(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class WordsOfImages(Words):
    """normalize: unit norm, or raw."""

    normalize: bool = True


class WordsOfPrompts(Words):
    """Class names to put behind contexts, or whole sentences."""

    class_names: Texts | None = None
    position: Literal[POSITIONS] = "end"
    texts: Texts | None = None

    @model_validator(mode="after")
    def either(self):
        if (self.class_names is None) == (self.texts is None):
            raise ValueError("give class_names, for contexts, or texts")
        return self


class Sentences(Words):
    """Plain sentences."""

    texts: Texts


class Phrase(Words):
    """Words whose token embeddings are requested."""

    words: Text


class ImageInput(Words):
    """An image, or a text, as jina-clip's and infinity's services take them."""

    image: str | None = None
    text: Text | None = None


class Embeddings(BaseModel):
    """A request as for OpenAI's /v1/embeddings. Images: JPEG or PNG in base64, or a data URL."""

    input: Text | ImageInput | Annotated[list[Text | ImageInput], Field(min_length=1, max_length=2048)]
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    modality: Literal["text", "image"] = "text"


def read_message(body: bytes, shapes: dict[str, str]) -> tuple[dict[str, torch.Tensor], dict, str]:
    """Tensors, words and SHA-256 of a message. Raises `WireError` for tensors that do not match `shapes`.

    shapes: name → axes of each tensor, such as "NMD", or "NMD NCMD"; one with "?" in front is optional.
    """
    tensors, words = unpack(body)
    if surplus := sorted(tensors.keys() - shapes.keys()):
        raise WireError(f"unknown tensor {surplus[0]!r}; expected {', '.join(shapes)}")
    for name, axes in shapes.items():
        if name in tensors:
            check_tensor(name, tensors[name], axes.lstrip("?").split())
        elif not axes.startswith("?"):
            raise WireError(f"tensor {name!r} is missing")
    return tensors, words, digest_of(body)


def check_tensor(name: str, tensor: torch.Tensor, forms: list[str]) -> None:
    """Raise `WireError` for a tensor of another shape or dtype, an empty one, or one that is not finite."""
    kind = torch.int64 if name == "labels" else torch.float32
    if tensor.dtype != kind or tensor.ndim not in map(len, forms) or not tensor.numel():
        wanted = " or ".join(f"({', '.join(form)})" for form in forms)
        raise WireError(f"{name} should be {kind} {wanted}, none of them 0, got {tensor.dtype} {tuple(tensor.shape)}")
    if kind == torch.float32 and not tensor.isfinite().all():
        raise WireError(f"{name} holds numbers that are not finite")


def decoded_image(encoded: str) -> Image.Image:
    """An image from base64, or a data URL. Raises `WireError`."""
    try:
        content = base64.b64decode(encoded.split(",", 1)[1] if encoded.startswith("data:") else encoded, validate=True)
        image = Image.open(io.BytesIO(content), formats=("JPEG", "PNG"))
        if image.width * image.height <= LARGEST_IMAGE:
            return image.convert("RGB")
    except Exception as error:  # decoders raise errors of many kinds on broken files
        raise WireError("an image should be JPEG or PNG in base64, alone or as a data URL") from error
    raise WireError(f"an image may have {LARGEST_IMAGE} pixels, this one has {image.width} × {image.height}")


def written(row: torch.Tensor, form: str):
    """A feature (E,) for JSON: a list of numbers, or the bytes of float32 in base64, which are exact."""
    return row.tolist() if form == "float" else base64.b64encode(row.numpy().tobytes()).decode()
