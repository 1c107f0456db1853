"""A face detector for judging only: BlazeFace (Bazarevsky et al. 2019, arXiv:1907.05047) in LiteRT.

The live path finds faces with YuNet; whether it found them all is asked of another network.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from understudy.vision.model_files import installed_model

_SIDE = 128
# (cells along a side, anchors per cell) of the short-range model's two feature maps.
_MAPS = ((16, 2), (8, 6))


class BlazeFace:
    """Finds frontal and half-turned faces that take up about a tenth of the picture or more. Not thread-safe.

    Raises:
        understudy.vision.model_files.WeightsError: the model is not installed.
    """

    def __init__(self) -> None:
        from ai_edge_litert.interpreter import Interpreter  # takes a second: not at import

        self._net: Any = Interpreter(str(installed_model("blaze-short")), num_threads=1)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        self._boxes, self._scores = (
            next(out["index"] for out in self._net.get_output_details() if out["shape"][-1] == width)
            for width in (16, 1)
        )
        self._anchors = np.concatenate([_centres(cells, count) for cells, count in _MAPS])

    def detect(self, image: NDArray[np.uint8], min_score: float = 0.75) -> NDArray[np.float32]:
        """Find faces.

        Args:
            image: uint8 [H, W, 3], BGR.
            min_score: 0 to 1.

        Returns:
            float32 [N, 4], xyxy, px; from brow to chin, ear to ear.
        """
        height, width = image.shape[:2]
        side = max(height, width)
        scale = side / _SIDE
        shift = ((side - width) / 2, (side - height) / 2)
        frame_to_input = np.float32([[1 / scale, 0, shift[0] / scale], [0, 1 / scale, shift[1] / scale]])
        small = cv2.warpAffine(image, frame_to_input, (_SIDE, _SIDE), flags=cv2.INTER_AREA)
        self._net.set_tensor(self._input, small[None, :, :, ::-1].astype(np.float32) / 127.5 - 1)
        self._net.invoke()
        scores = 1 / (1 + np.exp(-np.clip(self._net.get_tensor(self._scores)[0, :, 0], -80, 80)))
        kept = np.flatnonzero(scores >= min_score)
        raw = self._net.get_tensor(self._boxes)[0, kept, :4]
        corner = raw[:, :2] + self._anchors[kept] * _SIDE - raw[:, 2:] / 2
        xywh = np.concatenate([corner * scale - shift, raw[:, 2:] * scale], axis=1)
        best = cv2.dnn.NMSBoxes(xywh.tolist(), scores[kept].tolist(), min_score, 0.3)
        found = xywh[np.asarray(best, np.intp).ravel()]
        return np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1).astype(np.float32)


def _centres(cells: int, count: int) -> NDArray[np.float32]:
    """Return the anchors of one feature map, row by row: float32 [cells * cells * count, 2], x and y, 0 to 1."""
    y, x = np.mgrid[0:cells, 0:cells].astype(np.float32)
    return np.repeat(np.stack([x.ravel(), y.ravel()], axis=1) + 0.5, count, axis=0) / np.float32(cells)
