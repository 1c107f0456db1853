"""Whether personas may play now: asked of their consent records at every choice, and by a timer while they play."""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from understudy.bundle.bundle import PersonaInfo
from understudy.consent.persona import Persona
from understudy.consent.record import ConsentError
from understudy.consent.trust_store import TrustError, TrustStore

CHECK_EVERY_S = 10.0

_LOG = logging.getLogger(__name__)


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
        return Persona.of(info).check(use, self._store.read())

    def problem(self, infos: Iterable[PersonaInfo], use: str) -> str:
        """Why not all of these may be put to a use: a sentence, or "" when they may. Fails closed."""
        try:
            for info in infos:
                self.digest(info, use)
        except (ConsentError, TrustError, OSError) as error:
            return str(error)
        except Exception as error:  # whatever it is: who cannot be asked for may not play
            _LOG.exception("Consent could not be checked.")
            return f"Consent could not be checked ({type(error).__name__}: {error}). Look into the app's log."
        return ""


class Guarded(Protocol):
    """Somebody whose consent are asked for again and again."""

    def check_consent(self) -> str:
        """Ask now, and cover everything where they are refused; returns the reason."""
        ...

    def refuse(self, sentence: str) -> None:
        """Cover everything and say why, until consent are asked for again."""
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
            try:
                for viewer in self._viewers():
                    self._ask(viewer)
            except Exception:  # the timer is all that stands between a revocation and a stream: it goes on
                _LOG.exception("The viewers could not be asked for; it is tried again in %g s.", self._every_s)

    @staticmethod
    def _ask(viewer: Guarded) -> None:
        """Ask one viewer, and cover them where that fails."""
        try:
            viewer.check_consent()
        except Exception:
            _LOG.exception("A viewer's consent could not be checked, so they are covered.")
            viewer.refuse("Consent could not be checked, so the picture is covered. Look into the app's log.")
