"""What a viewer chooses on the page, and how it reaches the model that plays for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from liveframe.cover import CoverStyle
from liveframe.loading import Configure
from liveframe.model import FrameModel, FrameSession
from liveframe.models.side_by_side import OWN_CAMERA, SideBySide, SideBySideSession
from ui.session.model_sources import ServedModel
from understudy.swap.renderer import AnyRenderer
from understudy.swap.swapper import FaceSwapper, SwapSession, SwapSettings


@dataclass(frozen=True, slots=True)
class SideBySideView:
    """What stands left of the swap, both at half size; by default nothing does.

    Attributes:
        persona: who plays there; "": whoever plays on the right.
        served: another model for the left side; None: the same.
        is_camera: the viewer's own camera, which only they may choose.
    """

    persona: str = ""
    served: ServedModel | None = None
    is_camera: bool = False

    @property
    def is_on(self) -> bool:
        """Whether anything stands there."""
        return bool(self.persona) or self.served is not None or self.is_camera


@dataclass(frozen=True, slots=True)
class Choices:
    """What a viewer chose on the page; all of it takes effect from the next frame, but for `beside`.

    Attributes:
        swap: persona, strength and the look of the blend.
        is_swapping: off shows the viewer's own camera.
        cover: what hides a frame that cannot be swapped.
        is_mirrored: whether the picture is flipped like a mirror's, before anything else.
        beside: what stands left of the swap, as soon as it is ready.
    """

    swap: SwapSettings
    is_swapping: bool = True
    cover: CoverStyle = CoverStyle.BLUR
    is_mirrored: bool = True
    beside: SideBySideView = field(default_factory=SideBySideView)

    @property
    def personas(self) -> tuple[str, ...]:
        """Names of all who play."""
        left = (self.beside.persona,) if self.beside.persona else ()
        return tuple(dict.fromkeys((self.swap.persona, *self.swap.persona_by_track.values(), *left)))


def compose_model(model: FrameModel, own: Mapping[str, AnyRenderer], beside: SideBySideView) -> FrameModel:
    """Give a model the viewer's own personas, and what they want to see beside it."""
    right = _with_renderers(model, own)
    if not beside.is_on:
        return right
    if beside.is_camera:
        return SideBySide(None, right, (OWN_CAMERA, "Swapped"))
    if beside.served is None:
        return SideBySide(right, right, (f"A: {beside.persona}", "B"))
    return SideBySide(_with_renderers(beside.served.model, own), right, (f"A: {beside.served.title}", "B"))


def applying(choices: Choices) -> Configure:
    """Give a viewer's settings to every session that the pipeline opens."""

    def apply(session: FrameSession) -> None:
        if not isinstance(session, SideBySideSession):
            _apply(session, choices.swap)
            return
        _apply(session.right, choices.swap)
        if session.left is not None:
            _apply(session.left, replace(choices.swap, persona=choices.beside.persona or choices.swap.persona))

    return apply


def _apply(session: FrameSession, settings: SwapSettings) -> None:
    """Give a session its settings; its first persona plays where theirs is gone."""
    names = {settings.persona, *settings.persona_by_track.values()}
    is_known = not isinstance(session, SwapSession) or names <= set(session.personas)
    cast(SwapSession, session).apply(settings if is_known else replace(settings, persona="", persona_by_track={}))


def _with_renderers(model: FrameModel, renderers: Mapping[str, AnyRenderer]) -> FrameModel:
    for name, renderer in renderers.items():
        if isinstance(model, FaceSwapper):
            model = model.with_renderer(name, renderer)
    return model
