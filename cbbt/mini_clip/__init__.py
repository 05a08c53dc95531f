"""The embedded default model: a small CLIP and the procedural world it was pre-trained on."""

from .captions import known_phrases
from .model import MiniTokenizer, build_mini_clip, load_mini_clip

__all__ = ["MiniTokenizer", "build_mini_clip", "known_phrases", "load_mini_clip"]
