"""The live swap: detect and track -> align -> predict -> blend, one session per viewer."""

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
from understudy.draw.mesh_overlay import draw_mesh, tinted
from understudy.swap.blend import Blender
from understudy.swap.people import People
from understudy.swap.renderer import CropRenderer, InstantPersona, LoadedRenderer, Renderer
from understudy.swap.settings import FaceSelector, SwapSettings, View
from understudy.swap.skin_detail import SkinDetail
from understudy.vision.align import align
from understudy.vision.detect import FaceDetector
from understudy.vision.face import AlignedFace, Face
from understudy.vision.mesh import FaceMesh
from understudy.vision.track import FaceTracker, TrackSettings

__all__ = ["CropRenderer", "FaceSwapper", "InstantPersona", "SplitSwapSession", "SwapSession", "SwapSettings", "View"]

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
        renderers: Mapping[str, Renderer] | None = None,
        tracking: TrackSettings | None = None,
        people: People | None = None,
    ) -> None:
        self._bundle = bundle
        self.people = people
        self._threads = threads
        self._tracking = tracking or TrackSettings()
        self._lock = threading.Lock()
        self._loaded = {
            name: LoadedRenderer(renderer, self._skin_detail(name)) for name, renderer in (renderers or {}).items()
        }
        self._face_models: tuple[FaceDetector, FaceMesh] | None = None
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
        return kind(self, FaceTracker(*self._face_models, self._tracking), self.settings)

    def with_renderer(self, name: str, renderer: Renderer) -> "FaceSwapper":
        """Return another swapper that knows one more persona (or another one of that name), sharing all networks."""
        renderers = {key: loaded.renderer for key, loaded in self._loaded.items()} | {name: renderer}
        other = FaceSwapper(self._bundle, self.settings, self._threads, renderers, self._tracking, self.people)
        other._face_models = self._face_models
        return other

    def with_people(self, people: People) -> "FaceSwapper":
        """Return another swapper that tells by their faces who plays whom, sharing all networks."""
        renderers = {key: loaded.renderer for key, loaded in self._loaded.items()}
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
            renderer = self._bundle.swap_model(name, self._threads)
            renderer.predict(np.zeros((1, *renderer.spec.input_shape), np.uint8))
            with self._lock:
                self._loaded.setdefault(name, LoadedRenderer(renderer, self._skin_detail(name)))

    def _skin_detail(self, name: str) -> SkinDetail | None:
        """The fine structure of one of the bundle's personas that learned from pairs; None of all others.

        Only pairs lie on the driver's mesh: the classic recipe and other people's models paint eyes and brows of
        their own, in places of their own.
        """
        bundle = self._bundle
        if bundle is None or name not in [info.name for info in bundle.personas]:
            return None
        return SkinDetail(bundle.still(name)) if bundle.manifest.training.get("recipe") == "paired" else None

    def loaded(self, name: str) -> LoadedRenderer:
        """A loaded persona."""
        return self._loaded[name]


class SwapSession:
    """One viewer's stream. `process` and `close` as FrameSession says; `apply` from any thread.

    The result is complete when every chosen face was replaced. A face that was seen but could not be
    fitted, or was lost a moment ago, counts as found: the gate then covers the frame.
    """

    def __init__(self, model: FaceSwapper, tracker: FaceTracker, settings: SwapSettings) -> None:
        self._model = model
        self._tracker = tracker
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
        parts = self._aligned(frame.image, [face for face in chosen if face.mesh is not None], settings)
        lap("warp")
        all_loaded = [self._model.loaded(name) for name in parts]
        started = [(loaded, part, loaded.start(part)) for loaded, part in zip(all_loaded, parts.values(), strict=True)]

        def finish() -> FrameResult:
            swaps = [
                _RenderedFace(face, swap, loaded)
                for loaded, part, answer in started
                for face, swap in zip(part, answer(), strict=True)
            ]
            lap("network")
            image, done = self._blended(frame.image, swaps, settings)
            lap("blend")
            note = self._trouble or _note(len(chosen), done, settings)
            return FrameResult(image, frame.index, len(chosen), done, stages_ms, note)

        return finish

    def _blended(
        self, image: NDArray[np.uint8], swaps: Sequence["_RenderedFace"], settings: SwapSettings
    ) -> tuple[NDArray[np.uint8], int]:
        """Return a new image with the swaps in it, and how many faces they replaced."""
        out, blend = image.copy(), settings.blend()
        if settings.view == View.MASK:
            blend = replace(blend, colour_match=0.0)
        coverage: list[float] = []
        # Nearer faces are larger, and cover those behind them.
        for each in sorted(swaps, key=lambda painted: -_zoom(painted.face)):
            how = blend if each.loaded.is_aligned else replace(blend, own_eyes=False)
            is_mask = settings.view == View.MASK
            shown, skin_detail = (tinted(each.swap), None) if is_mask else (each.swap, each.loaded.skin_detail)
            coverage.append(self._blender.blend(out, each.face, shown, how, skin_detail))
            if settings.view == View.MESH:
                draw_mesh(out, each.face.face)
        done = sum(share >= _LEAST_COVERAGE for share in coverage)
        return out, done if settings.strength > 0 else 0

    def _aligned(
        self, image: NDArray[np.uint8], faces: Sequence[Face], settings: SwapSettings
    ) -> dict[str, list[AlignedFace]]:
        """Cut the faces out, by persona: each persona takes its own size, and all its faces in one batch."""
        parts: dict[str, list[AlignedFace]] = {}
        for face in faces:
            name = settings.persona_of(face)
            parts.setdefault(name, []).append(align(image, face, self._model.loaded(name).input_size))
        return parts

    def _load_wanted(self) -> None:
        """Load what is wanted, until nothing newer is; runs in the session's own thread."""
        while True:
            with self._lock:
                wanted = self._wanted
            trouble = ""
            try:
                self._model.load(_names(wanted))
            except LiveframeError as error:
                trouble = f"{error} The persona before it plays on."
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


class _RenderedFace(NamedTuple):
    """A face, what its persona painted (uint8 [R, R, 4], BGR and mask), and who painted it."""

    face: AlignedFace
    swap: NDArray[np.uint8]
    loaded: LoadedRenderer


class _StageTimer:
    """Notes the milliseconds since the last lap."""

    def __init__(self, stages_ms: dict[str, float]) -> None:
        self._stages_ms = stages_ms
        self._last_s = time.perf_counter()

    def __call__(self, stage: str) -> None:
        now_s = time.perf_counter()
        self._stages_ms[stage] = (now_s - self._last_s) * 1e3
        self._last_s = now_s


def _load_face_models(threads: int) -> tuple[FaceDetector, FaceMesh]:
    """Load the detector and the mesh and run each once, on a grey picture."""
    try:
        detector, mesh = FaceDetector(threads), FaceMesh(threads)
        grey = np.full((480, 640, 3), 128, np.uint8)
        detector.detect(grey)
        mesh.fit(grey, Face(np.array([200, 100, 440, 380], np.float32), 1.0, np.full((5, 2), 240, np.float32)))
    except Exception as error:  # the runtimes' errors share no base class
        raise ModelError(f"The face models cannot run here: {error}. Run `uv sync` and try again.") from error
    return detector, mesh


def _names(settings: SwapSettings) -> list[str]:
    return [settings.persona, *(name for name in settings.persona_by_track.values() if name)]


def _zoom(face: AlignedFace) -> float:
    """How large the face is made to fit its crop: large for small faces."""
    return float(np.hypot(face.frame_to_crop[0, 0], face.frame_to_crop[1, 0])) / face.crop.shape[0]


def _note(found: int, done: int, settings: SwapSettings) -> str:
    if found == 0:
        return "No face is in sight."
    if settings.strength <= 0:
        return "At strength 0 nothing is replaced. Raise it, or show your own camera."
    return "" if done >= found else "Not every face could be replaced."
