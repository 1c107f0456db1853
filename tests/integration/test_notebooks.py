"""The four notebooks run from top to bottom, in order, on the sample alone, and show pictures."""

import ast
import base64
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from training.persona_folders import write_one_shot
from understudy.bundle.bundle import Bundle, default_bundle
from understudy.bundle.manifest import MIXER

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = ("01_faceset", "02_train", "03_compare_and_promote", "04_latency")
PARAMETERS = {
    "01_faceset": {"EVERY": "3"},
    "02_train": {
        "TRIPLETS": "24",
        "FRAMES_PER_CLIP": "6",
        "OVERRIDES": '["iterations=8", "batch=2", "preview_every=4", "validation=4", "mixer_width=4"]',
    },
    "03_compare_and_promote": {"FRAMES": "4"},
    "04_latency": {"FRAMES": "12", "HEIGHTS": "(240, 360)"},
}

# Each test may have to run all notebooks that its own needs.
pytestmark = pytest.mark.timeout(1500)


@dataclass(frozen=True)
class _Tour:
    """An executed notebook.

    Attributes:
        text: all that it printed.
        pictures: all that it showed, uint8 [H, W, 3], BGR.
    """

    text: str
    pictures: list[np.ndarray]


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def execute(name: str, work: Path, **more: str) -> _Tour:
    """Run a notebook where it lies, its parameters replaced as the test wants them."""
    book = read(name)
    place = next(i for i, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", []))
    values: Mapping[str, str] = {"WORK": f"Path({str(work)!r})", **PARAMETERS[name], **more}
    given = nbformat.v4.new_code_cell("\n".join(f"{key} = {value}" for key, value in values.items()))
    book.cells.insert(place + 1, given)
    # On a busy machine pictures come late; nbclient gives up on them after four seconds unless it is told to wait.
    where = {"metadata": {"path": NOTEBOOKS}}
    NotebookClient(book, timeout=900, iopub_timeout=120, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    shown = [data for o in outputs if o.output_type == "display_data" for data in o.data.items()]
    pictures = [_decoded(data) for kind, data in shown if kind in ("image/png", "image/jpeg")]
    return _Tour("".join(o.text for o in outputs if o.output_type == "stream"), pictures)


def _decoded(data: str) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def assert_worth_a_look(tour: _Tour, count: int) -> None:
    assert len(tour.pictures) == count
    assert all(picture.shape[1] >= 250 and picture.std() > 10 for picture in tour.pictures)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(scope="module", autouse=True)
def own_home(work: Path) -> object:
    """Keep the kernels' caches and keys away from the user's."""
    (work / "home").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(work / "home"))
        patch.setenv("UNDERSTUDY_HOME", str(work / "home"))
        # Streamlit, where another test has imported it, asks for pictures that nobody sees; a kernel would inherit it.
        patch.delenv("MPLBACKEND", raising=False)
        yield


@pytest.fixture(scope="module")
def faceset_tour(work: Path) -> _Tour:
    return execute("01_faceset", work)


@pytest.fixture(scope="module")
def train_tour(work: Path, faceset_tour: _Tour) -> _Tour:
    shipped = NOTEBOOKS.parent / "bundles" / "default"
    shutil.copytree(shipped / "clara", work / "personas" / "clara")
    return execute("02_train", work, PERSONAS=repr(str(work / "personas")))


def test_01_shows_faces_poses_and_what_sorting_and_cleaning_find(faceset_tour: _Tour, work: Path) -> None:
    assert 4 <= len(faceset_tour.pictures) <= 5  # nothing to leave out is no picture
    assert_worth_a_look(faceset_tour, len(faceset_tour.pictures))
    found = re.search(r"\d+ faces of (?:[2-9]|1\d) people", faceset_tour.text)
    assert found, "the portrait, and the personas that ship"
    assert re.search(r"\d+ of \d+ faces stay", faceset_tour.text)
    assert (work / "faceset" / "manifest.jsonl").is_file()


def test_02_shows_the_training_and_registers_the_challenger(train_tour: _Tour, work: Path) -> None:
    # Triplets, the newest preview, the curves, the first preview beside the last.
    assert_worth_a_look(train_tour, 4)
    assert "step 8 of 8" in train_tour.text
    assert "models:/notebook/1 is the challenger" in train_tour.text
    assert (work / "training" / "bundle" / "manifest.json").is_file()


def test_03_compares_names_the_gates_that_fail_promotes_and_goes_back(train_tour: _Tour, work: Path) -> None:
    bundle = Bundle.load(default_bundle())
    facts = {"name": "one", "version": "1", "training": bundle.manifest.training}
    write_one_shot(work / "one", work / "personas", lambda path: path.write_bytes(bundle.read(MIXER)), **facts)
    tour = execute("03_compare_and_promote", work, TO_BEAT=repr(str(work / "one")))
    assert_worth_a_look(tour, 2)
    assert "FAILED" in tour.text and "Version 1 was not promoted; it was 2." in tour.text
    assert "True 1\n" in tour.text and "left and back to: (1, 2)" in tour.text
    assert re.search(r"^2 [0-9a-f]{12} .*\('champion',\)$", tour.text, re.MULTILINE)


def test_04_shows_where_the_milliseconds_go(work: Path) -> None:
    tour = execute("04_latency", work)
    assert_worth_a_look(tour, 4)
    assert len(re.findall(r"p50 \d+\.\d ms, p95 \d+\.\d ms", tour.text)) == 2


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_without_outputs_and_leans_on_the_packages(name: str) -> None:
    book = read(name)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert book.cells[0].cell_type == "markdown"
    assert "shared" not in "".join(cell.source for cell in book.cells)
    for cell in code:
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None and node.end_lineno - node.lineno < 5, node.name


def test_there_are_four_notebooks() -> None:
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == list(NAMES)
