"""Provenance of the numbers: versions of the packages, and the commit of the source."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def versions() -> dict[str, str]:
    """Versions of the packages that the numbers depend on."""
    packages = {"cbbt": "cbbt", "torch": "torch", "open_clip": "open_clip_torch", "numpy": "numpy"}
    return {"python": platform.python_version()} | {name: version(package) for name, package in packages.items()}


def commit() -> str | None:
    """The source's git commit, with "+" if tracked files differ from it; None outside git."""
    here = Path(__file__).parent
    try:
        name = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "."], cwd=here).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return name.stdout.strip() + ("+" if dirty else "")
