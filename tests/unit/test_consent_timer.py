"""The timer that asks for consent goes on whatever happens, and covers whom it cannot ask about."""

import threading
from collections.abc import Iterator

import pytest

from benchmarks.harness.waiting import wait_until
from ui.session.consent_timer import ConsentTimer


class Asked:
    """A viewer whose check fails in a way that nobody foresaw."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.asked = 0
        self.covers: list[str] = []

    def check_consent(self) -> str:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return ""

    def refuse(self, sentence: str) -> None:
        self.covers.append(sentence)


@pytest.fixture
def viewers() -> list[Asked]:
    return [Asked(KeyError("nobody foresaw this")), Asked(None)]


@pytest.fixture
def timer(viewers: list[Asked]) -> Iterator[ConsentTimer]:
    timer = ConsentTimer(lambda: viewers, every_s=0.01)
    yield timer
    timer.close()


def test_viewer_whose_check_fails_is_covered_and_the_others_are_asked_on(
    timer: ConsentTimer, viewers: list[Asked], caplog: pytest.LogCaptureFixture
) -> None:
    wait_until(lambda: viewers[0].asked >= 3 and viewers[1].asked >= 3)
    assert viewers[0].covers and not viewers[1].covers
    assert "nobody foresaw this" in caplog.text


def test_timer_survives_when_the_viewers_cannot_be_listed() -> None:
    asked = threading.Event()
    calls: list[int] = []

    def viewers() -> list[Asked]:
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("dictionary changed size during iteration")
        asked.set()
        return []

    timer = ConsentTimer(viewers, every_s=0.01)
    assert asked.wait(10)
    timer.close()
