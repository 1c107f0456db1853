"""What every test may use: the repository's root, a public-domain face, and the clips of ../shared where they are."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pylibsrtp  # noqa: F401 - WebRTC's; loaded after TensorFlow it crashes the process (the app never loads both)
import pytest
from numpy.typing import NDArray

from tests.support.coturn import Coturn, running_coturn
from tests.support.fault_table import pytest_configure, pytest_unconfigure, without_slow

__all__ = ["pytest_configure", "pytest_unconfigure"]  # hooks: the table at the end of `pytest -m faults`

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what lies under tests/browser, so that `-m browser` and `-m "not browser"` need no help from the files."""
    without_slow(config, items)
    for item in items:
        if "browser" in item.path.relative_to(ROOT).parts:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """A public-domain face (Eileen Collins, NASA): uint8 [512, 512, 3], BGR, read-only."""
    from skimage import data

    image = np.ascontiguousarray(data.astronaut()[..., ::-1])
    image.setflags(write=False)
    return image


@pytest.fixture(scope="session")
def shared_clip() -> Callable[[str], Path]:
    """Return a clip of ../shared/data/clips by its name; skip the test, with the reason, where it is missing."""

    def find(name: str) -> Path:
        path = SHARED_DATA / "clips" / name
        if not path.is_file():
            pytest.skip(f"needs {path}, which is not on this machine")
        return path

    return find


@pytest.fixture(scope="session")
def coturn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coturn]:
    """A real TURN server on loopback; skips the test where it is not installed."""
    with running_coturn(tmp_path_factory.mktemp("coturn")) as running:
        yield running
