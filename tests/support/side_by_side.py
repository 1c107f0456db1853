"""The whole suite on two workers: each file's tests on one of them; what is bound in time has nothing beside it."""

import fcntl
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

WORKERS = 2
# One browser and one app at a time.
_ONE_SCOPE = "tests/browser/"
# Their bounds are rates and milliseconds, which a neighbour's work would move.
_ALONE = (
    "tests/browser/test_live_page.py",
    "tests/faults/test_model_faults.py",
    "tests/faults/test_remote_faults.py",
    "tests/integration/test_benchmark_app_speed.py",
    "tests/integration/test_benchmarks_run.py",
    "tests/integration/test_liveframe_client.py",
    "tests/integration/test_liveframe_pipeline.py",
    "tests/integration/test_relay_webrtc.py",
    "tests/integration/test_relay_websocket.py",
    "tests/integration/test_serving_exchange.py",
    "tests/integration/test_serving_strangers.py",
    "tests/integration/test_swap_path_benchmark.py",
    "tests/integration/test_swap_path_pipeline.py",
    "tests/integration/test_ui_guard.py",
    "tests/unit/test_serving_batcher.py",
    "tests/unit/test_ui_frame_executor.py",
)

_ROOM = pytest.StashKey["Room"]()


class Room:
    """Tests enter it beside each other, or one enters it alone; who waits to be alone is not passed by.

    Args:
        folder: shared by the workers.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def entered(self, is_alone: bool) -> Iterator[None]:
        """Hold the room while the block runs."""
        with (self._folder / "room").open("w") as room:
            with (self._folder / "door").open("w") as door:
                fcntl.flock(door, fcntl.LOCK_EX)
                fcntl.flock(room, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
            try:
                yield
            finally:
                fcntl.flock(room, fcntl.LOCK_UN)  # a process that a test forked may hold the file open


class _ByScope(LoadScopeScheduling):
    """Hands out files, and the browser's tests as one."""

    def _split_scope(self, nodeid: str) -> str:
        return _ONE_SCOPE if nodeid.startswith(_ONE_SCOPE) else nodeid.partition("::")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Take two workers where everything is asked for; files and tests that are named run in one process, as ever."""
    option = config.option
    if hasattr(config, "workerinput"):
        return  # a worker of ours takes none of its own
    is_everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if is_everything and option.numprocesses is None and not option.usepdb:
        option.numprocesses, option.dist, option.loadscopereorder = WORKERS, "loadscope", False


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Return our own; a hook of pytest-xdist."""
    return _ByScope(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Find the room that this run's workers share."""
    if hasattr(config, "workerinput"):
        config.stash[_ROOM] = Room(Path(config.option.basetemp).parent)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put what runs alone last: while it does, the other worker can only wait."""
    if _ROOM in config.stash:
        items.sort(key=is_alone)


def is_alone(item: pytest.Item) -> bool:
    """Whether a test must have the machine for itself."""
    return item.nodeid.startswith(_ALONE)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Wait for the room before the clock of pytest-timeout starts."""
    room = item.config.stash.get(_ROOM, None)
    if room is None:
        return (yield)
    with room.entered(is_alone(item)):
        return (yield)
