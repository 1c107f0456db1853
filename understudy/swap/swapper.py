"""The live swap: detect and track -> align -> predict -> blend, one session per viewer."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from liveframe.errors import LiveframeError, ModelError
from liveframe.frame import Frame, FrameResult
from understudy.bundle.bundle import Bundle
from understudy.draw.mesh_overlay import draw_mesh
from understudy.swap.blend import Blender
from understudy.swap.driver import DriverBook
from understudy.swap.people import People
from understudy.swap.renderer import AnyRenderer, CropRenderer, Painted, Renderer, as_renderer, open_renderer
from understudy.swap.settings import LEAST_STRENGTH, FaceSelector, SwapSettings, View
from understudy.vision.detect import FaceDetector
from understudy.vision.face import Face
from understudy.vision.iris import IrisModel, eye_patch
from understudy.vision.mesh import FaceMesh
from understudy.vision.roll import RollCheck
from understudy.vision.track import FaceTracker, TrackSettings

__all__ = ["CropRenderer", "FaceSwapper", "SplitSwapSession", "SwapSession", "SwapSettings", "View"]

_LOG = logging.getLogger(__name__)

# A face whose mask covers less of its crop than this has not been replaced.
_LEAST_COVERAGE = 0.05


class FaceSwapper:
    """A FrameModel that replaces faces. Shared by all viewers; personas are loaded at their first use.

    Args:
        bundle: the personas; None when `renderers` holds all of them.
        settings: what sessions start with; the bundle's first persona where none is named.
        threads: cores that one frame's networks use.
        renderers: further personas, or others in place of the bundle's: a remote model, an instant persona.
        tracking: how faces are followed.
        people: who plays whom, told by their faces, where several are in sight.

    Raises:
        ModelError: there is no persona, or the settings name an unknown one.
    """

    def __init__(
        self,
        bundle: Bundle | None = None,
        settings: SwapSettings | None = None,
        threads: int = 1,
        renderers: Mapping[str, AnyRenderer] | None = None,
        tracking: TrackSettings | None = None,
        people: People | None = None,
    ) -> None:
        self._bundle = bundle
        self.people = people
        self._threads = threads
        self._tracking = tracking or TrackSettings()
        self._lock = threading.Lock()
        self._loaded = {name: as_renderer(renderer) for name, renderer in (renderers or {}).items()}
        self._face_models: _FaceModels | None = None
        shipped = [info.name for info in bundle.personas] if bundle else []
        self.personas = (*shipped, *(name for name in self._loaded if name not in shipped))
        if not self.personas:
            raise ModelError("A swapper must have a persona, but got neither a bundle nor renderers. Give one.")
        self.settings = self.resolved(settings or SwapSettings())

    def warm_up(self) -> None:
        """Load the detector, the mesh and the first persona, and run each once.

        Raises:
            ModelError: one of them cannot run here.
        """
        with self._lock:
            if self._face_models is None:
                self._face_models = _load_face_models(self._threads)
        self.load([*_names(self.settings), *(self.people.personas if self.people else ())])

    def open_session(self) -> "SwapSession":
        """Start one viewer's stream; a split one where a persona is far away.

        Raises:
            ModelError: `warm_up` has not run.
        """
        if self._face_models is None:
            raise ModelError("A swapper must be warm before it opens a session, but is cold. Call warm_up first.")
        is_split = any(loaded.is_remote for loaded in self._loaded.values())
        kind = SplitSwapSession if is_split else SwapSession
        detector, mesh, irises = self._face_models
        return kind(self, FaceTracker(detector, mesh, self._tracking), DriverBook(irises), self.settings)

    def with_renderer(self, name: str, renderer: AnyRenderer) -> "FaceSwapper":
        """Return another swapper that knows one more persona (or another one of that name), sharing all networks."""
        renderers: dict[str, AnyRenderer] = {**self._loaded, name: renderer}
        return self._like(renderers, self.people)

    def with_people(self, people: People) -> "FaceSwapper":
        """Return another swapper that tells by their faces who plays whom, sharing all networks."""
        return self._like(dict(self._loaded), people)

    def _like(self, renderers: Mapping[str, AnyRenderer], people: People | None) -> "FaceSwapper":
        other = FaceSwapper(self._bundle, self.settings, self._threads, renderers, self._tracking, people)
        other._face_models = self._face_models
        return other

    def resolved(self, settings: SwapSettings) -> SwapSettings:
        """Fill in the first persona where none is named.

        Raises:
            ModelError: the settings name an unknown persona.
        """
        named = settings if settings.persona else replace(settings, persona=self.personas[0])
        unknown = sorted(set(_names(named)) - set(self.personas))
        if unknown:
            raise ModelError(
                f"The persona must be one of {', '.join(self.personas)}, but got {', '.join(unknown)}. Pick one."
            )
        return named

    def is_loaded(self, names: Iterable[str]) -> bool:
        """Whether these personas can play at once."""
        return all(name in self._loaded for name in names)

    def load(self, names: Iterable[str]) -> None:
        """Load personas and run each once; takes 10 to 300 ms each, nothing for those loaded.

        Raises:
            ModelError: one of them cannot run here.
        """
        for name in names:
            if name in self._loaded or self._bundle is None:
                continue
            renderer = open_renderer(self._bundle, name, self._threads)
            with self._lock:
                self._loaded.setdefault(name, renderer)

    def loaded(self, name: str) -> Renderer:
        """A loaded persona."""
        return self._loaded[name]


class SwapSession:
    """One viewer's stream. `process` and `close` as FrameSession says; `apply` from any thread.

    The result is complete when every chosen face was replaced. A face that was seen but could not be
    fitted, or was lost a moment ago, counts as found: the gate then covers the frame.
    """

    def __init__(self, model: FaceSwapper, tracker: FaceTracker, book: DriverBook, settings: SwapSettings) -> None:
        self._model = model
        self._tracker = tracker
        self._book = book
        self._selector = FaceSelector()
        self._people = model.people.open() if model.people else None
        self._blender = Blender()
        self._lock = threading.Lock()
        self._settings = self._wanted = settings
        self._loader: threading.Thread | None = None
        self._trouble = ""
        self._faces: tuple[Face, ...] = ()
        self._has_begun = self._is_closed = False

    @property
    def settings(self) -> SwapSettings:
        """What the next frame is made with; the persona is the old one while a new one loads."""
        return self._settings

    @property
    def personas(self) -> tuple[str, ...]:
        """Names of all who can play."""
        return self._model.personas

    @property
    def faces(self) -> tuple[Face, ...]:
        """The faces of the newest frame, chosen or not, largest first; any thread may ask."""
        return self._faces

    def apply(self, settings: SwapSettings) -> None:
        """Change settings from the next frame on. Any thread.

        A persona that is not loaded yet is loaded first: before the stream's first frame while the caller waits,
        later in a thread of the session's, and the old one plays until then.

        Raises:
            ModelError: the persona is unknown, or cannot be loaded and the stream has not begun. The old
                settings stay.
        """
        wanted = self._model.resolved(settings)
        if not self._has_begun:
            self._model.load(_names(wanted))
        with self._lock:
            self._wanted, self._trouble = wanted, ""
            if self._model.is_loaded(_names(wanted)):
                self._settings = wanted
                return
            self._settings = replace(
                wanted, persona=self._settings.persona, persona_by_track=self._settings.persona_by_track
            )
            if self._loader is None and not self._is_closed:
                self._loader = threading.Thread(target=self._load_wanted, name="understudy-persona", daemon=True)
                self._loader.start()

    def process(self, frame: Frame) -> FrameResult:
        """Replace the chosen faces of a frame.

        Raises:
            ModelError: a persona failed; or the session is closed.
        """
        return self._begun(frame)()

    def close(self) -> None:
        """End the stream; waits for a persona that is loading, half a second at most."""
        with self._lock:
            self._is_closed = True
            loader = self._loader
        if loader is not None and loader is not threading.current_thread():
            loader.join(0.5)

    def _begun(self, frame: Frame) -> Callable[[], FrameResult]:
        """Find and cut out the faces and start the personas; the callable waits for them and blends.

        The first half owns the tracker and the selector, the second the blender: halves of different frames may
        overlap, two of the same kind may not.
        """
        if self._is_closed:
            raise ModelError("A session must be open to process a frame, but is closed. Open another one.")
        self._has_begun = True
        settings = self._settings
        faces = self._tracker.update(frame.image, frame.captured_s)
        self._faces = tuple(faces)
        stages_ms = dict(self._tracker.stages_ms)
        lap = _StageTimer(stages_ms)
        if self._people is not None:
            settings = replace(
                settings, persona_by_track={**self._people.assign(frame.image, faces), **settings.persona_by_track}
            )
        chosen = self._selector.choose(faces, settings)
        self._book.keep({face.track_id for face in faces})
        parts: dict[str, list[Face]] = {}
        for face in chosen:
            if face.mesh is not None:
                parts.setdefault(settings.persona_of(face), []).append(face)
        answers = [
            self._model.loaded(name).begin(frame.image, part, settings, self._book) for name, part in parts.items()
        ]
        lap("warp")

        def finish() -> FrameResult:
            swaps = [(name, each) for name, answer in zip(parts, answers, strict=True) for each in answer()]
            lap("network")
            image, painted = self._blended(frame.image, swaps, settings)
            lap("blend")
            note = self._trouble or _note(len(chosen), len(painted), settings)
            names, is_mixed = tuple(dict.fromkeys(painted)), settings.strength < LEAST_STRENGTH
            is_all = settings.faces == "all" and all(settings.persona_by_track.values())
            regions = None if is_all else tuple(face.box for face in chosen)
            counts = (len(chosen), len(painted))
            return FrameResult(image, frame.index, *counts, stages_ms, note, names, is_mixed, regions)

        return finish

    def _blended(
        self, image: NDArray[np.uint8], swaps: Sequence[tuple[str, Painted]], settings: SwapSettings
    ) -> tuple[NDArray[np.uint8], list[str]]:
        """Return a new image with the swaps in it, and for each face that they replaced the persona's name."""
        out = image.copy()
        painted: list[str] = []
        # Nearer faces are larger, and cover those behind them.
        for name, each in sorted(swaps, key=lambda swap: -swap[1].zoom):
            if each.lay(out, settings, self._blender) >= _LEAST_COVERAGE and settings.strength > 0:
                painted.append(name)
        if settings.view == View.MESH:
            for face in self._faces:
                if face.mesh is not None:
                    draw_mesh(out, face)
        return out, painted

    def _load_wanted(self) -> None:
        """Load what is wanted, until nothing newer is; runs in the session's own thread."""
        while True:
            with self._lock:
                wanted = self._wanted
            trouble = ""
            try:
                self._model.load(_names(wanted))
            except Exception as error:  # a file that is gone, a runtime that fails: later choices must still load
                _LOG.warning("The persona %s could not be loaded.", wanted.persona, exc_info=error)
                trouble = f"{_sentence(error)} The persona before it plays on."
            with self._lock:
                if self._wanted is not wanted and not self._is_closed:
                    continue
                self._loader = None
                self._trouble = trouble
                if not trouble:
                    self._settings = wanted
                return


class SplitSwapSession(SwapSession):
    """A SwapSession for personas far away: several frames may be on their way (a SplitSession)."""

    def begin(self, frame: Frame) -> Callable[[], FrameResult]:
        """Do the first half and send the crops off; the callable waits for the answer and gives the result.

        Raises:
            ModelError: the session is closed.
        """
        return self._begun(frame)


class _StageTimer:
    """Notes the milliseconds since the last lap."""

    def __init__(self, stages_ms: dict[str, float]) -> None:
        self._stages_ms = stages_ms
        self._last_s = time.perf_counter()

    def __call__(self, stage: str) -> None:
        now_s = time.perf_counter()
        self._stages_ms[stage] = (now_s - self._last_s) * 1e3
        self._last_s = now_s


class _FaceModels(NamedTuple):
    detector: FaceDetector
    mesh: FaceMesh
    irises: IrisModel


def _load_face_models(threads: int) -> _FaceModels:
    """Load the face models and run each once, on a grey picture."""
    try:
        detector, mesh, irises = FaceDetector(threads), FaceMesh(threads), IrisModel(threads)
        grey = np.full((480, 640, 3), 128, np.uint8)
        detector.detect(grey)
        mesh.fit(grey, Face(np.array([200, 100, 440, 380], np.float32), 1.0, np.full((5, 2), 240, np.float32)))
        irises.fit(eye_patch(grey, np.array([200, 240], np.float32), np.array([260, 240], np.float32)))
        RollCheck().upright(grey, Face(np.array([200, 100, 440, 380], np.float32), 1.0, np.zeros((5, 2), np.float32)))
        RollCheck().turned_faces(grey, 1.0)
    except Exception as error:  # the runtimes' errors share no base class
        raise ModelError(f"The face models cannot run here: {error}. Run `uv sync` and try again.") from error
    return _FaceModels(detector, mesh, irises)


def _sentence(error: Exception) -> str:
    """What a persona's loader raised, as a sentence with a remedy."""
    if isinstance(error, LiveframeError):
        return str(error)
    return f"The persona could not be loaded ({type(error).__name__}: {error}). Pick another one, or restart the app."


def _names(settings: SwapSettings) -> list[str]:
    return [settings.persona, *(name for name in settings.persona_by_track.values() if name)]


def _note(found: int, done: int, settings: SwapSettings) -> str:
    if found == 0:
        return "No face is in sight."
    if settings.strength <= 0:
        return "At strength 0 nothing is replaced. Raise it, or show your own camera."
    if settings.strength < LEAST_STRENGTH and done >= found:
        return "Mixed with your own face: at this strength you may be recognised. Raise it."
    return "" if done >= found else "Not every face could be replaced."
