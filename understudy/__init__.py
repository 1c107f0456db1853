"""The face domain: detect, track, align, swap, blend; consent and provenance.

What is public is named here and loaded at its first use, so that `import understudy` costs nothing.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from understudy.jobs.quiet_logs import keep_quiet

if TYPE_CHECKING:
    from understudy.bundle.bundle import Bundle, default_bundle
    from understudy.consent.trust_store import TrustStore
    from understudy.media.conversion import Conversion
    from understudy.media.conversion import convert as convert_clip
    from understudy.swap.renderer import CropRenderer
    from understudy.swap.settings import SwapSettings
    from understudy.swap.swapper import FaceSwapper

keep_quiet(os.environ)  # before any module here loads a library that would report

__all__ = [
    "Bundle",
    "Conversion",
    "CropRenderer",
    "FaceSwapper",
    "SwapSettings",
    "TrustStore",
    "convert_clip",  # `understudy.convert` is the command
    "default_bundle",
]

_HOMES = {
    "Bundle": "understudy.bundle.bundle",
    "Conversion": "understudy.media.conversion",
    "CropRenderer": "understudy.swap.renderer",
    "FaceSwapper": "understudy.swap.swapper",
    "SwapSettings": "understudy.swap.settings",
    "TrustStore": "understudy.consent.trust_store",
    "convert_clip": "understudy.media.conversion",
    "default_bundle": "understudy.bundle.bundle",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"understudy has no public name '{name}'. It has: {', '.join(__all__)}.")
    return getattr(import_module(_HOMES[name]), "convert" if name == "convert_clip" else name)
