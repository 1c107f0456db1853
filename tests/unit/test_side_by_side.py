"""What is bound in time runs with nothing beside it, and gets its turn though others keep coming."""

import threading
from pathlib import Path

from tests.support.side_by_side import Room


def enter(folder: Path, is_alone: bool, order: list[str], name: str) -> threading.Thread:
    def run() -> None:
        with Room(folder).entered(is_alone):
            order.append(name)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_tests_run_beside_each_other_and_one_that_must_be_alone_waits_and_is_not_passed_by(tmp_path: Path) -> None:
    order: list[str] = []
    with Room(tmp_path).entered(is_alone=False):
        enter(tmp_path, False, order, "beside").join(5)
        assert order == ["beside"]
        alone = enter(tmp_path, True, order, "alone")
        alone.join(0.2)
        later = enter(tmp_path, False, order, "later")
        later.join(0.2)
        assert order == ["beside"], "nobody enters before what waits to be alone"
    alone.join(5)
    later.join(5)
    assert order == ["beside", "alone", "later"]
