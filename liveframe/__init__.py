"""Any real-time frame model, relayed so that nothing is shown by accident. Knows no faces.

What is public is named here and loaded at its first use, so that `import liveframe` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from liveframe.cover import CoverStyle
    from liveframe.errors import FrameError, LiveframeError, ModelError
    from liveframe.frame import Frame, FrameResult
    from liveframe.gate import Gate, GatePolicy, Shown, ShownState
    from liveframe.model import BatchModel, BatchSpec, FrameModel, FrameSession
    from liveframe.pipeline import FramePipeline
    from liveframe.policy import PipelinePolicy

__all__ = [
    "BatchModel",
    "BatchSpec",
    "CoverStyle",
    "Frame",
    "FrameError",
    "FrameModel",
    "FramePipeline",
    "FrameResult",
    "FrameSession",
    "Gate",
    "GatePolicy",
    "LiveframeError",
    "ModelError",
    "PipelinePolicy",
    "Shown",
    "ShownState",
]

_HOMES = {
    "liveframe.cover": ("CoverStyle",),
    "liveframe.errors": ("FrameError", "LiveframeError", "ModelError"),
    "liveframe.frame": ("Frame", "FrameResult"),
    "liveframe.gate": ("Gate", "GatePolicy", "Shown", "ShownState"),
    "liveframe.model": ("BatchModel", "BatchSpec", "FrameModel", "FrameSession"),
    "liveframe.pipeline": ("FramePipeline",),
    "liveframe.policy": ("PipelinePolicy",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"liveframe has no public name '{name}'. It has: {', '.join(__all__)}.")
