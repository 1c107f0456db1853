"""The models that viewers may choose between: as shipped, champion, challenger, remote; and what each is now.

MLflow stays out of this process: `pipelines.follow`, a child, tells when an alias moves. The new bundle is verified,
opened and warmed on this module's own threads, and put into every stream that wants it between two frames.
"""

import json
import logging
import os
import subprocess
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Protocol

from liveframe.errors import LiveframeError, ModelError
from liveframe.gate import Paint
from liveframe.model import FrameModel
from liveframe.remote.client import Authorize
from serving.vertex.client import Fleet, RemoteModel, Served, TokenProvider, fetch_bundle, look_up
from ui.session.settings import AppSettings
from understudy.bundle.bundle import Bundle
from understudy.jobs.queue import ROOT, module_command
from understudy.provenance.disclosure import read_disclosure
from understudy.swap.served import crop_model, far_renderer
from understudy.swap.swapper import FaceSwapper

POLL_EVERY_S = 10.0
REMOTE_EVERY_S = 30.0
_RESTART_S = 15.0

_log = logging.getLogger(__name__)


class ModelSource(StrEnum):
    """Where the model that plays comes from."""

    EMBEDDED = "embedded"
    CHAMPION = "champion"
    CHALLENGER = "challenger"
    REMOTE = "remote"
    CANARY = "canary"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The personas on offer and the model that plays them, shared by all viewers.

    Attributes:
        bundle: the personas.
        model: plays them.
        overlays: what is painted on every picture that leaves: the watermark, then the visible mark.
        title: what people read.
        remotes: the far models behind its renderers, if it has any.
    """

    bundle: Bundle
    model: FrameModel
    overlays: tuple[Paint, ...]
    title: str = "As shipped"
    remotes: tuple[RemoteModel, ...] = ()


class ModelListener(Protocol):
    """A viewer, as far as the model_sources is concerned."""

    wanted: str

    def switch_model(self, served: ServedModel) -> object:
        """Begin to play by this model as soon as it is ready; the one before plays until then."""
        ...


def open_model(path: Path, trust: Path, title: str = "As shipped") -> ServedModel:
    """Load a bundle and make its model; cold.

    Raises:
        BundleError: it is missing or damaged.
        DisclosureError: the operator's file on marks cannot be followed.
    """
    bundle = Bundle.load(path)
    return ServedModel(bundle, FaceSwapper(bundle), read_disclosure(trust).overlays(bundle.digest), title)


def remote_model(served: Served, embedded: Bundle, settings: AppSettings, title: str) -> ServedModel:
    """Let an endpoint play the personas of the bundle that it serves; the same bundle, opened here, stands behind it.

    Marks and claims name that bundle, and an answer of any other is not shown.

    Raises:
        ModelError: the endpoint or the credentials cannot be found, or it serves a bundle that cannot be had here.
        BundleError: what it serves is damaged.
    """
    if served.digest and not embedded.digest.startswith(served.digest):
        if not served.bundle_uri:
            raise ModelError(
                f"The endpoint serves the bundle {served.digest[:12]}, but this app has {embedded.digest[:12]}. "
                "Start both with the same bundle (UNDERSTUDY_BUNDLE)."
            )
        embedded = Bundle.load(fetch_bundle(served, settings.work / "served"))
    remotes = {
        info.name: RemoteModel(served.settings, crop_model(embedded, info.name), info.name, embedded.digest)
        for info in embedded.personas
    }
    renderers = {name: far_renderer(embedded, name, remote) for name, remote in remotes.items()}
    overlays = read_disclosure(settings.trust).overlays(embedded.digest)
    return ServedModel(embedded, FaceSwapper(embedded, renderers=renderers), overlays, title, tuple(remotes.values()))


class ModelSources:
    """What each source plays now. Thread-safe; owns its threads and the child.

    Args:
        embedded: the bundle that the settings name.
        settings: whether a registered model is followed, and where the remote one is.
        listeners: who is there now.
        every_s: how often the registry is asked, in seconds.
    """

    def __init__(
        self,
        embedded: ServedModel,
        settings: AppSettings,
        listeners: Callable[[], Iterable[ModelListener]],
        every_s: float = POLL_EVERY_S,
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._every_s = every_s
        self._lock = threading.Lock()
        self._served = {ModelSource.EMBEDDED: embedded}
        self._problems: dict[ModelSource, str] = {}
        self._closing = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        self._threads: list[threading.Thread] = []
        self._fleet: Fleet | None = None
        self._played: dict[ModelSource, Served] = {}
        self._retired: list[RemoteModel] = []
        if settings.model:
            self._start(self._follow, "registry-follower")
        if settings.remote.is_on:
            self._start(self._follow_remote, "remote-follower")

    @property
    def default(self) -> ModelSource:
        """What plays for those who did not choose: what the operator configured last in line."""
        if self._settings.remote.is_on:
            return ModelSource.REMOTE
        return ModelSource.CHAMPION if self._settings.model else ModelSource.EMBEDDED

    def default_for(self, viewer: str) -> ModelSource:
        """What plays for a viewer who did not choose: the canary for its share of them, always the same ones.

        Args:
            viewer: anything that stays theirs.
        """
        with self._lock:
            fleet, has_canary = self._fleet, ModelSource.CANARY in self._served
        return ModelSource.CANARY if fleet and has_canary and fleet.has_canary_for(viewer) else self.default

    def sources(self) -> tuple[ModelSource, ...]:
        """What may be chosen, whether it is ready or not; a challenger only while there is one."""
        with self._lock:
            registered = (ModelSource.CHAMPION,) if self._settings.model else ()
            challenger = (ModelSource.CHALLENGER,) if ModelSource.CHALLENGER in self._served else ()
            canary = (ModelSource.CANARY,) if ModelSource.CANARY in self._served else ()
        remote = (ModelSource.REMOTE, *canary) if self._settings.remote.is_on else ()
        return (ModelSource.EMBEDDED, *registered, *challenger, *remote)

    def served(self, source: ModelSource) -> ServedModel:
        """What a source plays now; the embedded model where it is not ready."""
        with self._lock:
            return self._served.get(source, self._served[ModelSource.EMBEDDED])

    def rivals(self, playing: ServedModel) -> tuple[ServedModel, ...]:
        """What could stand beside the model that plays: all others that are ready."""
        with self._lock:
            return tuple(served for served in self._served.values() if served is not playing)

    def is_ready(self, source: ModelSource) -> bool:
        """Whether a source plays by itself."""
        with self._lock:
            return source in self._served

    def problem(self, source: ModelSource) -> str:
        """Why a source cannot play, or not its newest version; "" when it can."""
        with self._lock:
            return self._problems.get(source, "")

    def publish(self, source: ModelSource, served: ServedModel) -> None:
        """Let a source play by another model, in all streams that want it; they go on meanwhile.

        Raises:
            ModelError: the model cannot run here; the one before stays.
        """
        served.model.warm_up()
        with self._lock:
            self._served[source] = served
            self._problems.pop(source, None)
        for viewer in self._listeners():
            if viewer.wanted == source:
                viewer.switch_model(served)

    def close(self, timeout_s: float = 5.0) -> None:
        """End the child and the threads. Safe to call twice."""
        self._closing.set()
        child = self._child
        if child is not None and child.stdin is not None:
            child.stdin.close()
            try:
                child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for thread in self._threads:
            thread.join(timeout_s)

    # ------------------------------------------------------------------ on threads of its own

    def _start(self, run: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _follow_remote(self) -> None:
        """Ask again and again what the endpoint serves, and to which share of the viewers its canary goes."""
        authorize: Authorize | None = None
        while True:
            try:
                self._hang_up()
                if authorize is None and not self._settings.remote.endpoint.startswith("http"):
                    authorize = TokenProvider()
                fleet = look_up(self._settings.remote, authorize)
                self._take_served(ModelSource.REMOTE, fleet.stable, "Remote endpoint")
                if fleet.canary is not None:
                    self._take_served(ModelSource.CANARY, fleet.canary, "Remote canary")
                with self._lock:
                    self._fleet = fleet
                if fleet.canary is None:
                    self._end_canary()
            except (LiveframeError, OSError) as error:
                self._note(ModelSource.REMOTE, str(error))
            except Exception as error:  # Google's libraries raise errors of their own, without a common base
                self._note(ModelSource.REMOTE, f"The endpoint could not be asked: {error}")
            if self._closing.wait(REMOTE_EVERY_S):
                return

    def _take_served(self, source: ModelSource, served: Served, title: str) -> None:
        """Play what an endpoint serves by now, and tell why the embedded model stands in where it does."""
        if self._played.get(source) != served:
            embedded = self.served(ModelSource.EMBEDDED).bundle
            self._retired += self.served(source).remotes
            self.publish(source, remote_model(served, embedded, self._settings, title))
            self._played[source] = served
        reasons = [model.stats().reason for model in self.served(source).remotes]
        with self._lock:
            self._problems[source] = next(filter(None, reasons), "")

    def _hang_up(self) -> None:
        """Close what played a round ago: no stream is in the middle of a frame with it any more."""
        while self._retired:
            self._retired.pop().close()

    def _end_canary(self) -> None:
        """Let the viewers of a canary that ended play by what everybody else plays by."""
        with self._lock:
            self._played.pop(ModelSource.CANARY, None)
            ended = self._served.pop(ModelSource.CANARY, None)
        if ended is None:
            return
        self._retired += ended.remotes
        for viewer in self._listeners():
            if viewer.wanted == ModelSource.CANARY:
                viewer.wanted = ModelSource.REMOTE
                viewer.switch_model(self.served(ModelSource.REMOTE))

    def _follow(self) -> None:
        """Keep a child that follows the registry, and act on what it tells."""
        name = self._settings.model.partition("@")[0]
        sources = {f"{name}@challenger": ModelSource.CHALLENGER, self._settings.model: ModelSource.CHAMPION}
        while not self._closing.is_set():
            with TemporaryFile() as errors, self._spawn(list(sources), errors) as child:
                self._child = child
                for line in child.stdout or ():
                    self._handle_line(line, sources)
                why = _last_line(errors)
            if self._closing.is_set():
                return
            self._note(
                ModelSource.CHAMPION, f"The registry's follower ended{why and f' ({why})'}; it is started again."
            )
            if self._closing.wait(_RESTART_S):
                return

    def _spawn(self, uris: list[str], errors: IO[bytes]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            module_command("pipelines.follow", *uris, "--every", f"{self._every_s:g}"),
            cwd=ROOT,
            env=os.environ | {"MLFLOW_TRACKING_URI": self._settings.tracking_uri},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )

    def _handle_line(self, line: str, sources: dict[str, ModelSource]) -> None:
        """Act on one line of the child's."""
        try:
            news = json.loads(line)
            source = sources[news["uri"]]
        except (ValueError, KeyError, TypeError):
            return  # something else that was printed
        try:
            if news["problem"]:
                raise ModelError(str(news["problem"]))
            title = f"{source.value.capitalize()}, version {news['version']}"
            self.publish(source, open_model(Path(news["bundle"]), self._settings.trust, title))
        except (LiveframeError, OSError) as error:
            self._note(source, str(error))

    def _note(self, source: ModelSource, problem: str) -> None:
        with self._lock:
            self._problems[source] = problem
            if source is ModelSource.CHALLENGER:  # gone, or none yet: nothing to choose then
                self._served.pop(source, None)
        if source is not ModelSource.CHALLENGER:
            _log.warning("%s: %s", source, problem)


def _last_line(errors: IO[bytes]) -> str:
    """Return the last line of what a child wrote to a file of ours, at most 300 characters; "" where it wrote none."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4096))
    lines = errors.read().decode(errors="replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")
