"""Where this machine keeps models and cached text embeddings."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from regionclip_cli.files import user_path


def cache_dir() -> Path:
    """Return the cache folder: `$REGIONCLIP_CACHE`, else the user's XDG cache folder. It is not created here."""
    chosen = os.environ.get("REGIONCLIP_CACHE")
    return user_path(chosen) if chosen else Path(platformdirs.user_cache_dir("regionclip"))


def models_dir() -> Path:
    """Return the folder of model files that were downloaded or added."""
    return cache_dir() / "models"


def text_cache_dir() -> Path:
    """Return the folder of cached text embeddings."""
    return cache_dir() / "text"
