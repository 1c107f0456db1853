"""Embedders are near for one person and far for two."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.real_faces import SHARED, astronaut, astronaut_face
from understudy.vision.detect import FaceDetector
from understudy.vision.embedding import DlibEmbedder, Embedder, SFaceEmbedder
from understudy.vision.face import Face
from understudy.vision.model_files import folded_onnx

FACES = SHARED / "generated_faces"
ASTRONAUT, FACE = astronaut(), astronaut_face()


@pytest.fixture(scope="module", params=[SFaceEmbedder, DlibEmbedder])
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return request.param()


def test_same_person_stays_near_when_turned_dimmed_and_shrunk(embedder: Embedder) -> None:
    turn = cv2.getRotationMatrix2D((220, 120), 25, 0.6).astype(np.float32)
    other_picture = (cv2.warpAffine(ASTRONAUT, turn, (512, 512)) * 0.7).astype(np.uint8)
    other_face = Face(FACE.box, FACE.score, FACE.landmarks @ turn[:, :2].T + turn[:, 2])
    first, second = embedder.embed(ASTRONAUT, FACE), embedder.embed(other_picture, other_face)
    assert first.shape == (embedder.dimensions,) and first.dtype == np.float32
    assert embedder.distance(first, first) == pytest.approx(0, abs=1e-5)
    assert embedder.distance(first, second) < embedder.same_person
    assert embedder.similarity(first, second) == pytest.approx(1 - embedder.distance(first, second))


def test_strangers_are_far(embedder: Embedder) -> None:
    if not FACES.is_dir():
        pytest.skip("needs ../shared/data/generated_faces, which is not here")
    stranger = cv2.imread(str(sorted(FACES.glob("male/*/*.jpg"))[0]))
    assert stranger is not None
    stranger_face = FaceDetector().detect(stranger.astype(np.uint8))[0]
    vectors = embedder.embed(ASTRONAUT, FACE), embedder.embed(stranger.astype(np.uint8), stranger_face)
    assert embedder.distance(*vectors) > embedder.same_person


def test_sface_vectors_have_unit_length() -> None:
    assert np.linalg.norm(SFaceEmbedder().embed(ASTRONAUT, FACE)) == pytest.approx(1, abs=1e-5)


def test_sface_equals_opencvs_own_recogniser(tmp_path: Path) -> None:
    """OpenCV's FaceRecognizerSF on the same folded weights: alignment, colour order and network agree."""
    model = tmp_path / "sFACE.onnx"
    model.write_bytes(folded_onnx("sface"))
    reference = cv2.FaceRecognizerSF.create(str(model), "")
    row = np.concatenate([FACE.box[:2], FACE.box[2:] - FACE.box[:2], FACE.landmarks.ravel(), [FACE.score]])
    expected = reference.feature(reference.alignCrop(ASTRONAUT, row[None].astype(np.float32)))[0]
    cosine = SFaceEmbedder().embed(ASTRONAUT, FACE) @ expected / np.linalg.norm(expected)
    assert cosine > 0.999
