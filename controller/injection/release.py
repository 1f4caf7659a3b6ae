"""Which sidecar image belongs to this release."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

SIDECAR_IMAGE: Final = f"holdfast-sidecar:{version('holdfast')}"
"""The image that is injected unless another is asked for: that of the installed version of holdfast."""
