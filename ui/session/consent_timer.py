"""Whether personas may play now: asked of their consent records at every choice, and by a timer while they play."""

import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from understudy.bundle.bundle import PersonaInfo
from understudy.consent.persona import Persona
from understudy.consent.record import ConsentError
from understudy.consent.trust_store import TrustError, TrustStore

CHECK_EVERY_S = 10.0


class ConsentChecker:
    """Asks a persona's consent record, with the operator's keys and revocations as they are on disk. Thread-safe.

    Args:
        store: the operator's folder.
    """

    def __init__(self, store: TrustStore) -> None:
        self._store = store

    def digest(self, info: PersonaInfo, use: str) -> str:
        """Return the digest of the record that covers a use now; takes some milliseconds.

        Args:
            info: the persona and its files.
            use: "live" or "record".

        Raises:
            ConsentError: the use is not covered, or no longer.
            TrustError: the operator's folder cannot be read.
        """
        return Persona.load(info.name, info.title, info.still, info.consent).check(use, self._store.read())

    def problem(self, infos: Iterable[PersonaInfo], use: str) -> str:
        """Why not all of these may be put to a use: a sentence, or "" when they may. Fails closed."""
        try:
            for info in infos:
                self.digest(info, use)
        except (ConsentError, TrustError, OSError) as error:
            return str(error)
        return ""


class Guarded(Protocol):
    """Somebody whose consent are asked for again and again."""

    def check_consent(self) -> str:
        """Ask now, and cover everything where they are refused; returns the reason."""
        ...


class ConsentTimer:
    """Asks for every viewer's consent, from a thread of its own, until closed.

    Args:
        viewers: who is there now.
        every_s: how often to ask, in seconds.
    """

    def __init__(self, viewers: Callable[[], Iterable[Guarded]], every_s: float = CHECK_EVERY_S) -> None:
        self._viewers = viewers
        self._every_s = every_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="permit-timer", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 2.0) -> None:
        """End the thread. Safe to call twice."""
        self._closing.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._closing.wait(self._every_s):
            for viewer in self._viewers():
                viewer.check_consent()
