"""One viewer: their pipeline, their choices, their camera; and the registry of all viewers."""

import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from liveframe.cover import slate
from liveframe.errors import ModelError
from liveframe.frame import Image
from liveframe.gate import Paint, Shown, ShownState
from liveframe.model import FrameModel
from liveframe.models.side_by_side import SideBySideSession
from liveframe.pipeline import FramePipeline
from ui.session.choices import Choices, SideBySideView, applying, compose_model
from ui.session.consent_timer import ConsentChecker
from ui.session.model_sources import ServedModel
from ui.session.outputs import Outputs
from ui.session.recording import Recording, Sound
from ui.session.stream import Stream
from understudy.bundle.bundle import PersonaInfo
from understudy.swap.raw_face import RawFaceInspector
from understudy.swap.renderer import AnyRenderer
from understudy.swap.swapper import SwapSession

__all__ = ["Choices", "SideBySideView", "Viewer", "ViewerRegistry"]

FULL_SENTENCE = "All places of this server are taken. Yours comes by itself when somebody stops their camera."
COVERED_SENTENCE = "You covered yourself. Press Space, or “Go on”, to be seen again."
# Kinds of frames, as a pipeline counts them.
FRAME_KINDS = ("swapped", "held", "covered", "off", "incomplete", "suspected", "drops", "late")
SOUND_FRESH_S = 2.0  # a microphone that was silent for longer sends nothing


class Viewer:
    """One browser page: a pipeline through the shared model, freed by `close`.

    The page calls `choose` and `attach` from script threads; a relay calls `begin` from a
    thread of its own.

    Attributes:
        pipeline: decides what may be shown; ask it for `stats()`.
        token: an unguessable name by which a WebSocket finds this viewer.
        served: what plays now; None where the viewer was given a bare model.
        is_covered: whether the viewer covers themselves (`cover`).
        outputs: where else the pictures go.
        has_place: whether this stream took one of the server's places.
        wanted: the source (`ui.session.model_sources.ModelSource`) that this viewer wants to be played by.
    """

    def __init__(
        self,
        model: FrameModel,
        choices: Choices,
        overlays: Sequence[Paint] = (),
        consent: ConsentChecker | None = None,
        personas: Iterable[PersonaInfo] = (),
        may_stream: "Callable[[Viewer], bool]" = lambda _: True,
    ) -> None:
        """Start to warm the model for this viewer; frames are covered until it is ready.

        Args:
            model: what plays the personas, shared.
            choices: what the viewer begins with.
            overlays: painted on everything that leaves swapped or covered: the mark, the watermark.
            consent: whom to ask whether a persona may play; None: nobody is asked.
            personas: who may be chosen, with their records.
            may_stream: takes one of the server's places for this viewer's stream; False where none is free.
        """
        self.outputs = Outputs(lambda: self._newest)
        self._may_stream = may_stream
        self.has_place = False
        self.token = secrets.token_urlsafe(24)
        self._choices = choices
        self._consent = consent
        self._personas = {info.name: info for info in personas}
        self._lock = threading.RLock()
        self._cover_lock = threading.Lock()
        self._problem_sentence = ""
        self.is_covered = False
        self._stream: Stream | None = None
        self._newest: Shown | None = None
        self._seen: tuple[str, ...] = ()
        self._recording: Recording | None = None
        self._heard_s = float("-inf")
        self._folder: Path | None = None
        self._is_closed = self._is_leaving_camera = False
        self._marks = tuple(overlays)
        self._own: Mapping[str, AnyRenderer] = {}
        self._own_infos: tuple[PersonaInfo, ...] = ()
        self.served: ServedModel | None = None
        self.wanted = ""
        configure, inspect = applying(choices), RawFaceInspector()
        self.pipeline = FramePipeline(model, overlays=(self._mark,), configure=configure, inspect=inspect)
        self.pipeline.set_cover(choices.cover)
        self.pipeline.set_swapping(choices.is_swapping)
        self.check_consent()
        self.pipeline.tap(self._keep)

    @property
    def choices(self) -> Choices:
        """What holds now."""
        return self._choices

    @property
    def stream(self) -> Stream | None:
        """The camera's last start; None before the first."""
        return self._stream

    def choose(self, choices: Choices) -> None:
        """Take what the viewer chose; only what differs reaches the pipeline."""
        with self._lock:
            before, self._choices = self._choices, choices
            if choices.is_swapping != before.is_swapping:
                with self._cover_lock:
                    self.pipeline.set_swapping(choices.is_swapping or self.is_covered)
            if choices.cover != before.cover:
                self.pipeline.set_cover(choices.cover)
            if choices.personas != before.personas:
                self.check_consent()
            if (choices.swap, choices.beside) != (before.swap, before.beside):
                self.pipeline.configure(applying(choices))
            if choices.beside != before.beside:
                self._change_view(before.beside)

    # ------------------------------------------------------------------ whether they may play

    def offer(self, personas: Iterable[PersonaInfo]) -> None:
        """Say who may be chosen from now on, with their records."""
        with self._lock:
            self._personas = {info.name: info for info in personas}
            self.check_consent()

    def check_consent(self) -> str:
        """Ask whether all who are chosen or to be seen may play live; cover everything while one of them may not.

        Takes some milliseconds: for script threads and timers, not for the frame loop.

        Returns:
            The reason, which the viewer reads, or "".
        """
        if self._consent is None:
            return ""
        with self._lock:
            if self._is_closed:
                return ""
            return self._cover_for(self._problem(self._consent, "live"))

    def refuse(self, sentence: str) -> None:
        """Cover everything and say why, until `check_consent` finds that they may play."""
        self._cover_for(sentence)

    def _cover_for(self, problem: str) -> str:
        """Cover everything while there is a problem, or while a view with the camera in it has not gone yet."""
        leaving = "The view changes. If it does not, choose another one." if self._is_leaving_camera else ""
        with self._cover_lock:
            self._problem_sentence = problem or leaving
            self._block_or_not()
        return self._problem_sentence

    def cover(self, is_covered: bool) -> None:
        """Cover everything at once, the viewer's own camera too, until they go on. Quick: a key waits for it."""
        with self._cover_lock:
            self.is_covered = is_covered
            self._block_or_not()
            self.pipeline.set_swapping(is_covered or self._choices.is_swapping)

    def _block_or_not(self) -> None:
        if sentence := COVERED_SENTENCE if self.is_covered else self._problem_sentence:
            self.pipeline.block(sentence)
        else:
            self.pipeline.unblock()

    def infos(self, names: Iterable[str]) -> tuple[PersonaInfo, ...]:
        """The personas of these names, with their records; those that are gone are left out."""
        return tuple(self._personas[name] for name in names if name in self._personas)

    def _problem(self, consent: ConsentChecker, use: str) -> str:
        rival = self._choices.beside.served
        others = rival.bundle.personas if rival is not None else ()
        # Who is chosen is not always who is to be seen: where a persona cannot be loaded, the one before it plays on.
        playing = self._playing()
        seen = [name for name in playing if name not in {info.name for info in others}]
        names = tuple(dict.fromkeys((*self._choices.personas, *seen)))
        strangers = [name for name in names if name not in self._personas]
        if strangers:
            return f"There is no consent record of {', '.join(strangers)} any more. Pick another persona."
        left = [info for info in others if info.name in (*self._choices.personas, *playing)] or others[:1]
        return consent.problem((*self.infos(names), *left), use)

    def _playing(self) -> tuple[str, ...]:
        """Who was to be seen last, and who is painted into the next frame, whatever was chosen."""
        session = self.pipeline.session
        sides = (session.left, session.right) if isinstance(session, SideBySideSession) else (session,)
        settings = [side.settings for side in sides if isinstance(side, SwapSession)]
        names = [name for each in settings for name in (each.persona, *each.persona_by_track.values())]
        return tuple(dict.fromkeys((*self._seen, *names)))

    # ------------------------------------------------------------------ who plays

    def switch_model(self, served: ServedModel) -> Future[None]:
        """Let another model take over between two frames; the stream goes on by the one before until then.

        Where the new one lacks the chosen persona, its first one plays.

        Returns:
            A future: None once it plays, or the ModelError that prevented it.
        """
        with self._lock:
            done: Future[None] = Future()
            if served is self.served:
                done.set_result(None)
                return done
            infos = {info.name: info for info in (*served.bundle.personas, *self._own_infos)}
            names = self._choices.personas if set(self._choices.personas) <= infos.keys() else tuple(infos)[:1]
            problem = "" if self._consent is None else self._consent.problem([infos[name] for name in names], "live")
            if problem:
                done.set_exception(ModelError(f"{served.title} cannot play: {problem}"))
                return done
            done = self._bring_up(served.model)
        done.add_done_callback(lambda future: self._took_over(served, future))
        return done

    def set_own_personas(self, renderers: Mapping[str, AnyRenderer], infos: Iterable[PersonaInfo]) -> Future[None]:
        """Let the viewer's own personas play as well, in place of those brought before.

        Args:
            renderers: who plays, by name.
            infos: their records.

        Returns:
            As `switch_model`.
        """
        with self._lock:
            self._own, self._own_infos = dict(renderers), tuple(infos)
            served = self.served
            if served is None:
                raise ModelError("The stream must have personas before it takes others, but has none. Reload the page.")
            return self._bring_up(served.model)

    def _change_view(self, before: SideBySideView) -> None:
        """Show another view; one with the camera in it is covered until it has gone."""
        if before.is_camera or self._choices.beside.is_camera:
            self._is_leaving_camera = before.is_camera and not self._choices.beside.is_camera
            self._cover_for(self.check_consent())
        if self.served is not None:
            self._bring_up(self.served.model)

    def _bring_up(self, model: FrameModel) -> Future[None]:
        """Let a model take over, with the viewer's own personas and in the view that they chose."""
        beside = self._choices.beside
        future = self.pipeline.replace_model(compose_model(model, self._own, beside))
        future.add_done_callback(lambda done: self._view_changed(beside, done))
        return future

    def _view_changed(self, beside: SideBySideView, future: Future[None]) -> None:
        """Uncover what the camera was in, now that it is not. Runs on the thread that brought the model up."""
        if future.cancelled() or future.exception() is not None:
            return
        with self._lock:
            if self._is_leaving_camera and not beside.is_camera and not self._is_closed:
                self._is_leaving_camera = False
                self._cover_for(self.check_consent())

    def _took_over(self, served: ServedModel, future: Future[None]) -> None:
        """Note who plays. Runs on the thread that brought the model up."""
        if future.cancelled() or future.exception() is not None:
            return
        with self._lock:
            self.served, self._marks = served, served.overlays
            self._seen = ()  # the model before is gone
            self.offer((*served.bundle.personas, *self._own_infos))
            if not set(self._choices.personas) <= self._personas.keys():
                first = served.bundle.personas[0].name
                swap = replace(self._choices.swap, persona=first, persona_by_track={})
                self.choose(replace(self._choices, swap=swap, beside=SideBySideView()))

    def _mark(self, image: Image) -> Image:
        """Paint the marks of whoever plays (a `liveframe.gate.Paint`)."""
        for paint in self._marks:
            image = paint(image)
        return image

    def faces(self) -> tuple[int, ...]:
        """Ids of the faces in sight, from left to right as they are shown."""
        session = self.pipeline.session
        session = session.right if isinstance(session, SideBySideSession) else session
        faces = session.faces if isinstance(session, SwapSession) else ()
        return tuple(face.track_id for face in sorted(faces, key=lambda face: float(face.box[0])) if face.track_id >= 0)

    # ------------------------------------------------------------------ keeping what was shown

    @property
    def newest(self) -> Shown | None:
        """What was shown last; None before the first picture."""
        return self._newest

    @property
    def recording(self) -> Recording | None:
        """The recording under way; None while there is none."""
        return self._recording

    @property
    def has_sound(self) -> bool:
        """Whether the camera's sound comes in now."""
        return time.monotonic() - self._heard_s < SOUND_FRESH_S

    def record(self) -> Recording:
        """Start to record what is shown; an earlier recording under way is discarded."""
        with self._lock:
            self.drop_recording()
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="understudy-live-"))
            path = self._folder / f"{secrets.token_hex(8)}.mp4"
            self._recording = Recording(path, self.has_sound)
            return self._recording

    def end_recording(self) -> Recording | None:
        """Take the recording out of the stream, to be finished by the caller."""
        with self._lock:
            recording, self._recording = self._recording, None
            return recording

    def drop_recording(self) -> None:
        """End the recording under way without a file."""
        recording = self.end_recording()
        if recording is not None:
            recording.discard()

    def hear(self, sound: Sound) -> None:
        """Take a piece of the camera's sound; it goes into recordings only. Quick; any one thread."""
        self._heard_s = sound.arrived_s
        recording = self._recording
        if recording is not None:
            recording.hear(sound)

    def _keep(self, shown: Shown) -> None:
        """Look at everything that is shown (a `liveframe.pipeline.Tap`)."""
        self._newest = shown if shown.state is not ShownState.OFF else None
        self._seen = shown.personas
        recording = self._recording
        if recording is not None:
            recording.write(shown)

    # ------------------------------------------------------------------ the stream

    def attach(self, stream: Stream) -> None:
        """Make this the viewer's stream, in place of an earlier one, which is closed."""
        with self._lock:
            before, self._stream = self._stream, stream
            self.has_place = False
        if before is not None and before is not stream:
            before.close()

    @property
    def is_live(self) -> bool:
        """Whether a stream of this viewer's holds a place."""
        stream = self._stream
        return self.has_place and stream is not None and not stream.is_ended

    @property
    def in_flight(self) -> int:
        """How many frames may be begun at once, now (`ui.session.stream.FrameHandler`)."""
        return self.pipeline.in_flight

    def begin(self, image: Image, captured_s: float) -> Callable[[], Image]:
        """Take a camera frame in (`ui.session.stream.FrameHandler`). Never raises, never gives the raw frame unasked.

        Args:
            image: uint8 [H, W, 3], BGR; not written to again.
            captured_s: when it arrived, time.monotonic() seconds.

        Returns:
            Waits, and gives what may be shown: uint8 [H, W, 3], BGR. Must be called, once.
        """
        if not (self.has_place or self._may_stream(self)):
            height, width = image.shape[:2]
            return lambda: slate(height, width, FULL_SENTENCE)
        if self._choices.is_mirrored:
            image = np.asarray(cv2.flip(image, 1), np.uint8)
        shown = self.pipeline.start(image, captured_s)
        return lambda: shown().image

    def close(self) -> None:
        """End the stream and let the session go. Waits for nothing: the server's event loop calls it. Safe twice."""
        self._is_closed = True
        stream = self._stream
        if stream is not None:
            stream.close()
        self.outputs.close()
        self.pipeline.close(timeout_s=0.0)
        self._newest = None
        self.drop_recording()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


@dataclass(slots=True)
class ViewerRegistry:
    """The viewers of one server, of whom `most` may stream at the same time; idle pages take no place. Thread-safe."""

    most: int
    _taken: dict[str, Viewer] = field(default_factory=dict[str, Viewer])
    _past: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FRAME_KINDS, 0))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def admit(
        self,
        model: FrameModel,
        choices: Choices,
        overlays: Sequence[Paint] = (),
        consent: ConsentChecker | None = None,
        personas: Iterable[PersonaInfo] = (),
    ) -> Viewer:
        """Admit a new viewer; the arguments are `Viewer`'s."""
        viewer = Viewer(model, choices, overlays, consent, personas, self._take_place)
        with self._lock:
            self._taken[viewer.token] = viewer
        return viewer

    def is_full_for(self, viewer: Viewer) -> bool:
        """Whether others stream in all places, so that a start of this viewer's would be covered."""
        with self._lock:
            return self._others_live(viewer) >= self.most

    def _take_place(self, viewer: Viewer) -> bool:
        with self._lock:
            viewer.has_place = self._others_live(viewer) < self.most
            return viewer.has_place

    def _others_live(self, viewer: Viewer) -> int:
        return sum(other.is_live for other in self._taken.values() if other is not viewer)

    def find(self, token: str) -> Viewer | None:
        """The viewer of that token."""
        with self._lock:
            return self._taken.get(token)

    def leave(self, viewer: Viewer) -> None:
        """Free a viewer's place and all that they hold. Safe to call twice."""
        with self._lock:
            if self._taken.pop(viewer.token, None) is not None:
                _add_frames(self._past, viewer)
        viewer.close()

    def viewers(self) -> tuple[Viewer, ...]:
        """Who is here now."""
        with self._lock:
            return tuple(self._taken.values())

    def frames(self) -> dict[str, int]:
        """How many frames there were since the start, by `FRAME_KINDS`; of those who left, too."""
        with self._lock:
            counts = self._past.copy()
            for viewer in self._taken.values():
                _add_frames(counts, viewer)
        return counts

    def __len__(self) -> int:
        return len(self._taken)


def _add_frames(counts: dict[str, int], viewer: Viewer) -> None:
    stats = viewer.pipeline.stats()
    for kind in FRAME_KINDS:
        counts[kind] += getattr(stats, kind)
