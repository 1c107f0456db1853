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
from typing import Protocol

from liveframe.errors import LiveframeError, ModelError
from liveframe.gate import Paint
from liveframe.model import FrameModel
from serving.vertex.client import RemoteModel
from ui.session.settings import AppSettings
from understudy.bundle.bundle import Bundle
from understudy.jobs.queue import ROOT, module_command
from understudy.provenance.disclosure import read_disclosure
from understudy.swap.swapper import FaceSwapper

POLL_EVERY_S = 10.0
_RESTART_S = 15.0

_log = logging.getLogger(__name__)


class Source(StrEnum):
    """Where the model that plays comes from."""

    EMBEDDED = "embedded"
    CHAMPION = "champion"
    CHALLENGER = "challenger"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True)
class House:
    """The personas on offer and the model that plays them, shared by all viewers.

    Attributes:
        bundle: the personas.
        model: plays them.
        finish: what is painted on every picture that leaves: the watermark, then the visible mark.
        title: what people read.
    """

    bundle: Bundle
    model: FrameModel
    finish: tuple[Paint, ...]
    title: str = "As shipped"


class Audience(Protocol):
    """A viewer, as far as the repertoire is concerned."""

    wanted: str

    def play(self, house: House) -> object:
        """Begin to play by this model as soon as it is ready; the one before plays until then."""
        ...


def open_house(path: Path, trust: Path, title: str = "As shipped") -> House:
    """Load a bundle and make its model; cold.

    Raises:
        BundleError: it is missing or damaged.
        DisclosureError: the operator's file on marks cannot be followed.
    """
    bundle = Bundle.load(path)
    return House(bundle, FaceSwapper(bundle), read_disclosure(trust).paints(bundle.digest), title)


def remote_house(embedded: House, settings: AppSettings) -> House:
    """Let the remote endpoint play the embedded bundle's personas; the embedded model stands behind it.

    Raises:
        ModelError: the endpoint or the credentials cannot be found.
    """
    bundle = embedded.bundle
    names = [info.name for info in bundle.personas]
    roles = {name: RemoteModel(settings.remote, bundle.swap_model(name), name) for name in names}
    return House(bundle, FaceSwapper(bundle, roles=roles), embedded.finish, "Remote endpoint")


class Repertoire:
    """What each source plays now. Thread-safe; owns its threads and the child.

    Args:
        embedded: the bundle that the settings name.
        settings: whether a registered model is followed, and where the remote one is.
        audience: who is there now.
        every_s: how often the registry is asked, in seconds.
    """

    def __init__(
        self,
        embedded: House,
        settings: AppSettings,
        audience: Callable[[], Iterable[Audience]],
        every_s: float = POLL_EVERY_S,
    ) -> None:
        self._settings = settings
        self._audience = audience
        self._every_s = every_s
        self._lock = threading.Lock()
        self._houses = {Source.EMBEDDED: embedded}
        self._problems: dict[Source, str] = {}
        self._closing = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        self._threads: list[threading.Thread] = []
        if settings.model:
            self._start(self._follow, "registry-follower")
        if settings.remote.is_on:
            self._start(self._open_remote, "remote-opener")

    @property
    def default(self) -> Source:
        """What plays for those who did not choose: what the operator configured last in line."""
        if self._settings.remote.is_on:
            return Source.REMOTE
        return Source.CHAMPION if self._settings.model else Source.EMBEDDED

    def sources(self) -> tuple[Source, ...]:
        """What may be chosen, whether it is ready or not; a challenger only while there is one."""
        with self._lock:
            registered = (Source.CHAMPION,) if self._settings.model else ()
            challenger = (Source.CHALLENGER,) if Source.CHALLENGER in self._houses else ()
        remote = (Source.REMOTE,) if self._settings.remote.is_on else ()
        return (Source.EMBEDDED, *registered, *challenger, *remote)

    def house(self, source: Source) -> House:
        """What a source plays now; the embedded model where it is not ready."""
        with self._lock:
            return self._houses.get(source, self._houses[Source.EMBEDDED])

    def rivals(self, playing: House) -> tuple[House, ...]:
        """What could stand beside the model that plays: all others that are ready."""
        with self._lock:
            return tuple(house for house in self._houses.values() if house is not playing)

    def is_ready(self, source: Source) -> bool:
        """Whether a source plays by itself."""
        with self._lock:
            return source in self._houses

    def problem(self, source: Source) -> str:
        """Why a source cannot play, or not its newest version; "" when it can."""
        with self._lock:
            return self._problems.get(source, "")

    def put(self, source: Source, house: House) -> None:
        """Let a source play by another model, in all streams that want it; they go on meanwhile.

        Raises:
            ModelError: the model cannot run here; the one before stays.
        """
        house.model.warm_up()
        with self._lock:
            self._houses[source] = house
            self._problems.pop(source, None)
        for viewer in self._audience():
            if viewer.wanted == source:
                viewer.play(house)

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

    def _open_remote(self) -> None:
        try:
            self.put(Source.REMOTE, remote_house(self.house(Source.EMBEDDED), self._settings))
        except (LiveframeError, OSError) as error:
            self._note(Source.REMOTE, str(error))

    def _follow(self) -> None:
        """Keep a child that follows the registry, and act on what it tells."""
        name = self._settings.model.partition("@")[0]
        sources = {f"{name}@challenger": Source.CHALLENGER, self._settings.model: Source.CHAMPION}
        while not self._closing.is_set():
            with self._spawn(list(sources)) as child:
                self._child = child
                for line in child.stdout or ():
                    self._take(line, sources)
            if self._closing.wait(_RESTART_S):
                return
            self._note(Source.CHAMPION, "The registry's follower ended; it is started again.")

    def _spawn(self, uris: list[str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            module_command("pipelines.follow", *uris, "--every", f"{self._every_s:g}"),
            cwd=ROOT,
            env=os.environ | {"MLFLOW_TRACKING_URI": self._settings.tracking_uri},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def _take(self, line: str, sources: dict[str, Source]) -> None:
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
            self.put(source, open_house(Path(news["bundle"]), self._settings.trust, title))
        except (LiveframeError, OSError) as error:
            self._note(source, str(error))

    def _note(self, source: Source, problem: str) -> None:
        with self._lock:
            self._problems[source] = problem
            if source is Source.CHALLENGER:  # gone, or none yet: nothing to choose then
                self._houses.pop(source, None)
        if source is not Source.CHALLENGER:
            _log.warning("%s: %s", source, problem)
