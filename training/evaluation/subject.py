"""Who is shown in a measurement: one photo, or the clip's own first clear frame, with no training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from training.evaluation.observer import Observer
from understudy.media.guard import MediaError
from understudy.swap.renderer import AnyRenderer, one_shot_persona
from understudy.swap.settings import SwapSettings
from understudy.swap.swapper import FaceSwapper
from understudy.vision.embedding import Embedding
from understudy.vision.reference import ReferenceFace, reference_face

if TYPE_CHECKING:
    from understudy.bundle.bundle import Bundle

Image = NDArray[np.uint8]

_LEAST_PRESENCE = 0.8


@dataclass(frozen=True, slots=True)
class OneShot:
    """How a persona is made of one picture.

    Attributes:
        make: gives what paints a reference, an aligned picture with its mesh.
        settings: what its stream starts with; persona and faces are filled in.
    """

    make: Callable[[ReferenceFace], AnyRenderer] = lambda reference: one_shot_persona([reference], None)
    settings: SwapSettings = field(default_factory=SwapSettings)

    @classmethod
    def of(cls, bundle: Bundle) -> OneShot:
        """Make personas as a bundle does: with its mixing network; without one where it holds an autoencoder."""
        mixer = bundle.mixer() if bundle.manifest.is_one_shot else None
        return cls(lambda reference: one_shot_persona([reference], mixer))


@dataclass(frozen=True, slots=True)
class Subject:
    """A persona that can be measured.

    Attributes:
        name: the persona's name.
        model: warm; its sessions swap every face to the persona.
        identity: embedding of the persona's own picture, by embedder; empty where no face is seen in it.
    """

    name: str
    model: FaceSwapper
    identity: Mapping[str, Embedding]


def photo_subject(photo: Path, observer: Observer, how: OneShot) -> Subject:
    """Return the persona of one photo, named for its file.

    Raises:
        MediaError: the photo cannot be read or shows no clear face.
    """
    image = cv2.imread(str(photo))
    if image is None:
        raise MediaError(f"{photo} must be a picture, but it cannot be read. Use a JPEG, PNG or WebP.")
    subject = picture_subject(photo.stem, np.asarray(image, np.uint8), observer, how)
    if subject is None:
        raise MediaError(f"{photo} must show a clear face, but none was found. Use a sharp, frontal photo.")
    return subject


def picture_subject(
    name: str, image: Image, observer: Observer, how: OneShot, light: Callable[[Image], Image] | None = None
) -> Subject | None:
    """Return the persona of one picture's largest face; None where no face is clear.

    Args:
        name: what to call it.
        image: uint8 [H, W, 3], BGR.
        observer: who looks for the face and embeds it.
        how: makes what paints it.
        light: changes the reference's light; its mesh and identity stay.
    """
    face = observer.find(image)
    if face is None or face.mesh is None or face.presence < _LEAST_PRESENCE:
        return None
    reference = reference_face(image, face)
    if light:
        reference = ReferenceFace(light(reference.image), reference.mesh)
    settings = replace(how.settings, persona=name, faces="all")
    model = FaceSwapper(settings=settings, renderers={name: how.make(reference)})
    model.warm_up()
    return Subject(name, model, observer.embed(image, face.mesh))
