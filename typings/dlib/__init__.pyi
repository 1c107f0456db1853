"""The part of dlib that Understudy uses; the wheel ships no types."""

import numpy as np
from numpy.typing import NDArray

class point:
    x: int
    y: int

class rectangle:
    def __init__(self, left: int, top: int, right: int, bottom: int) -> None: ...

class full_object_detection:
    num_parts: int
    def part(self, index: int) -> point: ...

class vector:
    def __array__(self) -> NDArray[np.float64]: ...

class shape_predictor:
    def __init__(self, path: str) -> None: ...
    def __call__(self, image: NDArray[np.uint8], box: rectangle) -> full_object_detection: ...

class face_recognition_model_v1:
    def __init__(self, path: str) -> None: ...
    def compute_face_descriptor(self, img: NDArray[np.uint8]) -> vector: ...
