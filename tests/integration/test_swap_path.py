"""The whole swap path on a real face: what is replaced, what stays, what is counted, and how settings change."""

import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.harness.tiny_bundle import PERSONAS, build_tiny_bundle, persona_colour
from liveframe.errors import ModelError
from liveframe.frame import Frame, FrameResult
from liveframe.model import BatchSpec, FrameModel, FrameSession, SplitSession
from liveframe.remote.client import LocalClient
from tests.support.real_faces import astronaut, astronaut_face
from understudy.bundle.bundle import Bundle, BundleError, default_bundle
from understudy.swap.renderer import LoadedRenderer, one_shot_persona
from understudy.swap.settings import LEAST_STRENGTH
from understudy.swap.swapper import FaceSwapper, SwapSession, SwapSettings, View
from understudy.vision.align import align
from understudy.vision.face import AlignedFace
from understudy.vision.reference import ReferenceFace

PLAIN = SwapSettings("ada", colour_match=False)


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("swap") / "tiny")


@pytest.fixture(scope="module")
def swapper(bundle_path: Path) -> FaceSwapper:
    model = FaceSwapper(Bundle.load(bundle_path), PLAIN)
    model.warm_up()
    return model


@pytest.fixture
def session(swapper: FaceSwapper) -> Iterator[SwapSession]:
    opened = swapper.open_session()
    yield opened
    opened.close()


def picture(*shifts: int) -> np.ndarray:
    """480p: the astronaut's head and shoulders, once for each shift to the right in px; read-only."""
    image = np.full((480, 640, 3), 110, np.uint8)
    for shift in shifts:
        image[:360, shift : shift + 300] = astronaut()[:360, 70:370]
    image.setflags(write=False)
    return image


def frame(index: int = 0, image: np.ndarray | None = None) -> Frame:
    return Frame(picture(160) if image is None else image, index, index / 30)


def astronaut_mesh() -> np.ndarray:
    mesh = astronaut_face().mesh
    assert mesh is not None
    return mesh


def face_mask(result: FrameResult, before: np.ndarray) -> np.ndarray:
    return (np.abs(result.image.astype(int) - before).max(2) > 0).astype(np.uint8)


def face_colour(result: FrameResult, shift: int = 160) -> np.ndarray:
    """The mean BGR of a cheek-to-cheek patch of the face."""
    mesh = astronaut_mesh()
    x, y = mesh[1, 0] - 70 + shift, mesh[1, 1]
    return result.image[int(y - 12) : int(y + 12), int(x - 15) : int(x + 15)].mean((0, 1))


def test_swapper_keeps_the_seams(swapper: FaceSwapper, session: SwapSession) -> None:
    assert isinstance(swapper, FrameModel)
    assert isinstance(session, FrameSession)
    assert swapper.personas == tuple(PERSONAS)


def test_face_becomes_the_persona_and_the_background_stays_bit_exact(session: SwapSession) -> None:
    result = session.process(frame())
    assert (result.subjects_found, result.subjects_done, result.index) == (1, 1, 0)
    np.testing.assert_allclose(face_colour(result), persona_colour(0), atol=25)
    x, y, width, height = cv2.boundingRect(face_mask(result, picture(160)))
    oval = astronaut_mesh()[:, :2] - (70 - 160, 0)
    assert x >= oval[:, 0].min() - 6 and x + width <= oval[:, 0].max() + 6
    assert y >= oval[:, 1].min() - 6 and y + height <= oval[:, 1].max() + 6
    assert width > 60 and height > 80


def test_result_is_a_new_array_and_the_camera_s_stays_as_it_was(session: SwapSession) -> None:
    image = picture(160).copy()
    kept = image.copy()
    for index in range(3):
        result = session.process(frame(index, image))
        assert not np.shares_memory(result.image, image)
    np.testing.assert_array_equal(image, kept)


def test_earlier_results_are_not_written_to_by_later_frames(session: SwapSession) -> None:
    first = session.process(frame(0)).image
    kept = first.copy()
    session.process(frame(1, picture(40)))
    np.testing.assert_array_equal(first, kept)


def test_every_stage_is_timed_in_order(session: SwapSession) -> None:
    stages_ms = session.process(frame()).stages_ms
    assert list(stages_ms) == ["detect", "mesh", "check", "smooth", "warp", "network", "blend"]
    assert all(value >= 0 for value in stages_ms.values())


def test_picture_without_a_face_is_never_complete(session: SwapSession) -> None:
    result = session.process(frame(0, picture()))
    assert (result.subjects_found, result.subjects_done) == (0, 0)
    assert not result.is_complete
    assert result.note


def test_two_faces_are_both_replaced(session: SwapSession) -> None:
    result = session.process(frame(0, picture(0, 320)))
    assert (result.subjects_found, result.subjects_done) == (2, 2)
    for shift in (0, 320):
        np.testing.assert_allclose(face_colour(result, shift), persona_colour(0), atol=25)


def test_each_face_can_have_its_own_persona(session: SwapSession, swapper: FaceSwapper) -> None:
    swapper.load(["ben"])
    session.apply(SwapSettings("ada", colour_match=False, persona_by_track={1: "ben"}))
    result = session.process(frame(0, picture(0, 320)))
    colours = [face_colour(result, shift) for shift in (0, 320)]
    errors = [[np.abs(colour - persona_colour(seed)).max() for colour in colours] for seed in (0, 1)]
    assert sorted([int(np.argmin(errors[0])), int(np.argmin(errors[1]))]) == [0, 1]
    assert max(min(error) for error in errors) < 25


def test_only_the_largest_face_is_replaced_when_asked(session: SwapSession) -> None:
    image = picture(0).copy()
    small = cv2.resize(picture(0)[:360, :300], (150, 180), interpolation=cv2.INTER_AREA)
    image[20:200, 420:570] = small
    session.apply(SwapSettings("ada", colour_match=False, faces="largest"))
    result = session.process(frame(0, image))
    assert (result.subjects_found, result.subjects_done) == (1, 1)
    np.testing.assert_array_equal(result.image[:, 330:], image[:, 330:])


def test_face_that_was_lost_leaves_the_frame_incomplete(session: SwapSession) -> None:
    for index in range(4):
        session.process(frame(index, picture(0, 320)))
    hidden = picture(0, 320).copy()
    hidden[:, 320:] = 110
    result = session.process(frame(4, hidden))
    assert (result.subjects_found, result.subjects_done) == (2, 1)
    assert not result.is_complete


def test_lost_largest_face_is_not_replaced_by_a_bystander(session: SwapSession) -> None:
    session.apply(SwapSettings("ada", colour_match=False, faces="largest"))
    image = picture(0).copy()
    image[20:240, 420:603] = cv2.resize(picture(0)[:360, :300], (183, 220), interpolation=cv2.INTER_AREA)
    assert session.process(frame(0, image)).is_complete
    hidden = image.copy()
    hidden[:, :300] = 110
    result = session.process(frame(1, hidden))
    assert (result.subjects_found, result.subjects_done) == (1, 0)


def test_persona_changes_in_mid_stream_without_a_raw_or_black_frame(bundle_path: Path) -> None:
    model = FaceSwapper(Bundle.load(bundle_path), PLAIN)
    model.warm_up()
    session = model.open_session()
    session.process(frame(0))
    session.apply(SwapSettings("ben", colour_match=False))
    colours: list[np.ndarray] = []
    deadline_s = time.monotonic() + 10
    is_new = False
    while not is_new and time.monotonic() < deadline_s:
        is_new = session.settings.persona == "ben"
        result = session.process(frame(1 + len(colours)))
        assert result.is_complete
        colours.append(face_colour(result))
    session.close()
    distances = [min(np.abs(colour - persona_colour(seed)).max() for seed in (0, 1)) for colour in colours]
    assert max(distances) < 25
    np.testing.assert_allclose(colours[-1], persona_colour(1), atol=25)


def test_last_of_many_quick_changes_wins(swapper: FaceSwapper) -> None:
    session = swapper.open_session()
    session.process(frame(0))
    for turn in range(20):
        session.apply(SwapSettings("ben" if turn % 2 else "ada", strength=0.5, colour_match=False))
    session.apply(SwapSettings("ben", colour_match=False))
    deadline_s = time.monotonic() + 10
    while session.settings.persona != "ben" and time.monotonic() < deadline_s:
        session.process(frame(1))
    result = session.process(frame(2))
    session.close()
    np.testing.assert_allclose(face_colour(result), persona_colour(1), atol=25)


def test_persona_that_fails_to_load_leaves_the_old_one_and_says_why(tmp_path: Path) -> None:
    directory = build_tiny_bundle(tmp_path / "tiny")
    model = FaceSwapper(Bundle.load(directory), PLAIN)
    model.warm_up()
    session = model.open_session()
    session.process(frame(0))
    (directory / "ben" / "decoder.onnx").write_bytes(b"damaged")
    session.apply(SwapSettings("ben", colour_match=False))
    deadline_s = time.monotonic() + 10
    while not (result := session.process(frame(1))).note and time.monotonic() < deadline_s:
        pass
    session.close()
    assert "hashed" in result.note and result.is_complete
    np.testing.assert_allclose(face_colour(result), persona_colour(0), atol=25)


def test_unknown_persona_is_refused_and_the_old_one_stays(session: SwapSession) -> None:
    with pytest.raises(ModelError, match="ada, ben"):
        session.apply(SwapSettings("zoe"))
    assert session.settings.persona == "ada"


def test_settings_from_another_thread_take_effect(session: SwapSession) -> None:
    session.process(frame(0))
    thread = threading.Thread(target=session.apply, args=(SwapSettings("ada", strength=0.0),))
    thread.start()
    thread.join(5)
    result = session.process(frame(1))
    np.testing.assert_array_equal(result.image, picture(160))
    assert not result.is_complete


def test_persona_of_one_photo_plays_without_training(swapper: FaceSwapper) -> None:
    still_face = align(astronaut(), astronaut_face(), 256)
    still = ReferenceFace(
        cv2.applyColorMap(cv2.cvtColor(still_face.crop, cv2.COLOR_BGR2GRAY), cv2.COLORMAP_OCEAN), still_face.mesh
    )
    model = swapper.with_renderer("instant", one_shot_persona([still], None))
    session = model.open_session()
    session.apply(SwapSettings("instant"))
    result = session.process(frame())
    session.close()
    assert result.is_complete
    changed = face_mask(result, picture(160))
    assert changed.sum() > 3000
    assert changed[:, :200].sum() == changed[250:].sum() == 0


class Failing:
    """A renderer that fails as asked."""

    input_size = 64

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def __call__(self, face: AlignedFace) -> np.ndarray:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]


@pytest.mark.parametrize(
    "answer", [ZeroDivisionError("no"), np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 4), np.float32)]
)
def test_failing_role_is_an_error_of_the_frame(swapper: FaceSwapper, answer: object) -> None:
    session = swapper.with_renderer("failing", Failing(answer)).open_session()
    session.apply(SwapSettings("failing"))
    with pytest.raises(ModelError):
        session.process(frame())
    session.apply(SwapSettings("ada"))
    assert session.process(frame(1)).is_complete
    session.close()


@pytest.mark.parametrize("opacity", [0, 130])
def test_role_with_an_empty_or_thin_mask_has_not_replaced_the_face(swapper: FaceSwapper, opacity: int) -> None:
    session = swapper.with_renderer("empty", Failing(np.full((64, 64, 4), opacity, np.uint8))).open_session()
    session.apply(SwapSettings("empty"))
    result = session.process(frame())
    assert (result.subjects_found, result.subjects_done) == (1, 0)
    session.close()


class Inverting:
    """A real, face-less BatchModel that takes two crops at most: inverts colours under a full mask."""

    spec = BatchSpec((48, 48, 3), (48, 48, 4), max_batch=2)

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def predict(self, batch: np.ndarray) -> np.ndarray:
        self.sizes.append(len(batch))
        return np.concatenate([255 - batch, np.full((*batch.shape[:3], 1), 255, np.uint8)], axis=3)


def test_batches_stay_within_what_the_model_takes() -> None:
    model = Inverting()
    face = align(astronaut(), astronaut_face(), 48)
    swaps = LoadedRenderer(model).render([face] * 5)
    assert model.sizes == [2, 2, 1]
    assert len(swaps) == 5
    np.testing.assert_array_equal(swaps[4][..., :3], 255 - face.crop)


@pytest.mark.parametrize("view", [View.MASK, View.MESH])
def test_looking_into_the_works_shows_no_more_of_the_camera(session: SwapSession, view: View) -> None:
    plain = session.process(frame(0))
    session.apply(SwapSettings("ada", colour_match=False, view=view))
    result = session.process(frame(1))
    changed = face_mask(result, plain.image)
    assert changed.sum() > 100
    if view is View.MASK:
        assert face_colour(result)[1] > face_colour(plain)[1] + 40
    inside = cv2.erode(face_mask(plain, picture(160)), np.ones((7, 7), np.uint8)) == 1
    assert np.count_nonzero(face_mask(result, picture(160))[inside] == 0) < 0.01 * np.count_nonzero(inside)


def test_cold_swapper_and_closed_session_say_so(bundle_path: Path, swapper: FaceSwapper) -> None:
    with pytest.raises(ModelError, match="warm_up"):
        FaceSwapper(Bundle.load(bundle_path)).open_session()
    session = swapper.open_session()
    session.close()
    session.close()
    with pytest.raises(ModelError, match="closed"):
        session.process(frame())


def test_swapper_needs_a_persona() -> None:
    with pytest.raises(ModelError, match="persona"):
        FaceSwapper()


def test_persona_far_away_is_sent_its_crops_while_the_next_frame_begins(bundle_path: Path) -> None:
    with LocalClient(Bundle.load(bundle_path).swap_model("ben")) as client:
        model = FaceSwapper(renderers={"far": client}, settings=SwapSettings("far", colour_match=False))
        model.warm_up()
        session = model.open_session()
        assert isinstance(session, SplitSession)
        halves = [session.begin(frame(index, picture(80 + 10 * index))) for index in range(3)]
        results = [half() for half in halves]
        session.close()
    assert [result.index for result in results] == [0, 1, 2]
    for index, result in enumerate(results):
        assert result.is_complete
        np.testing.assert_allclose(face_colour(result, 80 + 10 * index), persona_colour(1), atol=25)


def test_persona_in_this_process_gets_a_plain_session(session: SwapSession) -> None:
    assert not isinstance(session, SplitSession)


def test_persona_far_away_that_hung_up_is_an_error_of_the_frame(bundle_path: Path) -> None:
    client = LocalClient(Bundle.load(bundle_path).swap_model("ben"))
    model = FaceSwapper(renderers={"far": client})
    model.warm_up()
    session = model.open_session()
    client.close()
    with pytest.raises(ModelError, match="closed"):
        session.process(frame())
    session.close()


def test_sessions_of_one_model_run_side_by_side(swapper: FaceSwapper) -> None:
    results: dict[int, list[FrameResult]] = {0: [], 1: []}

    def run(key: int) -> None:
        session = swapper.open_session()
        results[key].extend(session.process(frame(index, picture(80 * key))) for index in range(6))
        session.close()

    threads = [threading.Thread(target=run, args=(key,)) for key in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for key, found in results.items():
        assert len(found) == 6 and all(result.is_complete for result in found)
        np.testing.assert_allclose(face_colour(found[-1], 80 * key), persona_colour(0), atol=25)


def test_every_size_of_frame_is_swapped(swapper: FaceSwapper) -> None:
    for width, height in ((320, 240), (1280, 720), (501, 333)):
        session = swapper.open_session()
        image = cv2.resize(picture(160), (width, height), interpolation=cv2.INTER_AREA)
        result = session.process(frame(0, image))
        assert result.image.shape == image.shape and result.is_complete
        session.close()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 500), (500, 2), (16, 16), (33, 1000)])
def test_odd_frames_are_answered_in_their_size(session: SwapSession, height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for index in range(3):
        result = session.process(frame(index, image))
        assert result.image.shape == image.shape
        assert not np.shares_memory(result.image, image)


@pytest.mark.parametrize("is_shipped", [False, True], ids=["flat colours", "shipped, with detail"])
def test_steady_state_allocates_one_frame_the_result(swapper: FaceSwapper, is_shipped: bool) -> None:
    model = FaceSwapper(Bundle.load(default_bundle()), SwapSettings("clara")) if is_shipped else swapper
    model.warm_up()
    session = model.open_session()
    image = cv2.resize(picture(160), (1920, 1440), interpolation=cv2.INTER_LINEAR)
    for index in range(3):
        session.process(frame(index, image))
    tracemalloc.start()
    result = session.process(frame(3, image))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    session.close()
    assert result.is_complete
    assert image.nbytes <= peak_bytes < 1.25 * image.nbytes


def test_persona_whose_loader_fails_in_any_way_does_not_wedge_later_choices(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FaceSwapper(Bundle.load(bundle_path), PLAIN)
    model.warm_up()
    session = model.open_session()
    session.process(frame(0))
    with monkeypatch.context() as patch:
        patch.setattr(Bundle, "swap_model", lambda *_: [][0])  # what no loader should raise
        session.apply(SwapSettings("ben", colour_match=False))
        deadline_s = time.monotonic() + 10
        while not (result := session.process(frame(1))).note and time.monotonic() < deadline_s:
            pass
    assert "IndexError" in result.note and "plays on" in result.note
    assert result.personas == ("ada",), "the result names who was painted, not who was chosen"
    np.testing.assert_allclose(face_colour(result), persona_colour(0), atol=25)
    session.apply(SwapSettings("ben", colour_match=False))
    deadline_s = time.monotonic() + 10
    while session.process(frame(2)).personas != ("ben",):
        assert time.monotonic() < deadline_s
    session.close()


def test_bundle_whose_file_is_gone_says_so(tmp_path: Path) -> None:
    directory = build_tiny_bundle(tmp_path / "tiny")
    bundle = Bundle.load(directory)
    (directory / "ben" / "decoder.onnx").unlink()
    with pytest.raises(BundleError, match="ben"):
        bundle.swap_model("ben")


def test_result_names_who_was_painted_and_says_when_it_is_a_mix(session: SwapSession) -> None:
    assert session.process(frame(0)).personas == ("ada",)
    session.apply(SwapSettings("ada", strength=0.05))
    mixed = session.process(frame(1))
    assert mixed.is_mixed and "own face" in mixed.note
    session.apply(SwapSettings("ada", strength=LEAST_STRENGTH))
    assert not session.process(frame(2)).is_mixed
    assert session.process(Frame(np.full((480, 640, 3), 90, np.uint8), 3, 1.0)).personas == ()
