"""A persona: a name, a look, and the record that says what the look may be used for."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from understudy.bundle.bundle import PersonaInfo
from understudy.consent.check import check, hash_files, read_record
from understudy.consent.record import ConsentError, ConsentRecord
from understudy.consent.trust_store import Trust, TrustError, TrustStore

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Persona:
    """A face to be worn.

    Attributes:
        name: identifier.
        title: what people read.
        still: picture of its look; listed in the record.
        consent: its signed record.
        more: further pictures that it is played by; listed in the record, too.
    """

    name: str
    title: str
    still: Path
    consent: ConsentRecord
    more: tuple[Path, ...] = ()

    @property
    def kind(self) -> str:
        """Whose face it is: "synthetic", "self" or "person"."""
        return self.consent.consent.kind

    @property
    def recipe(self) -> Mapping[str, Any]:
        """How a synthetic face was made; empty for people."""
        return self.consent.consent.recipe

    @classmethod
    def load(cls, name: str, title: str, still: Path, consent: Path, more: tuple[Path, ...] = ()) -> "Persona":
        """Read a persona's record; nothing is checked yet.

        Raises:
            ConsentError: MISSING or MALFORMED.
        """
        return cls(name, title, still, read_record(consent), more)

    @classmethod
    def of(cls, info: PersonaInfo) -> "Persona":
        """Read the record of a bundle's persona; raises as `load` does."""
        return cls.load(info.name, info.title, info.still, info.consent, info.more)

    def check(self, use: str, trust: Trust, now: datetime | None = None) -> str:
        """Refuse a use that its record does not cover, or a picture that is not listed.

        Args:
            use: "train", "live" or "record".
            trust: `TrustStore.read`.
            now: aware; the present when left out.

        Returns:
            The record's digest.

        Raises:
            ConsentError: with a code and a sentence.
        """
        return check(self.consent, use, trust, now=now, faces=hash_files([self.still, *self.more]), persona=self.name)


class ConsentWatch:
    """Asks again, while a persona is live, whether it still may be.

    `problem` is for the live loop: it costs a clock reading, and a check of some milliseconds every `every_s`,
    when it also reads the trust folder anew, so that a revocation on disk counts within that time.
    Thread-safe.

    Args:
        persona: whom to watch.
        use: "live" or "record".
        store: the operator's folder.
        every_s: how often to check, in seconds.
        clock: monotonic seconds; tests hand in their own.
        today: the present, aware; tests hand in their own.
    """

    def __init__(
        self,
        persona: Persona,
        use: str,
        store: TrustStore,
        every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._persona = persona
        self._use = use
        self._store = store
        self._every_s = every_s
        self._clock = clock
        self._today = today
        self._lock = threading.Lock()
        self._next_s = clock()
        self._problem = ""

    def problem(self) -> str:
        """Return the sentence to stop with and to show, or "" while the use is covered. Fails closed."""
        with self._lock:
            if self._clock() >= self._next_s:
                self._next_s = self._clock() + self._every_s
                try:
                    self._persona.check(self._use, self._store.read(), self._today())
                    self._problem = ""
                except (ConsentError, TrustError, OSError) as error:
                    self._problem = str(error)
                except Exception as error:  # whatever it is: who cannot be asked for may not play
                    _LOG.exception("Consent could not be checked.")
                    self._problem = f"Consent could not be checked ({type(error).__name__}: {error}). See the log."
            return self._problem
