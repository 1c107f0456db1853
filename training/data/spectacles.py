"""Who wears spectacles: a small network that learned it from spectacles drawn on faces.

Faces that wear them would teach the mixing network to take spectacles from references and off drivers, so they are left
out of its triplets (they still lend their patterns). No labels are needed: a face with drawn spectacles is one, the
same face without is none, and the few real ones among the latter are outvoted. Two minutes on one core.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.drivers import DriverCrops
from training.data.triplets import SIDE, TripletMaker

# The band of the eyes in a 128 px crop: rows, columns.
_BAND = (slice(32, 80), slice(8, 120))
_EXAMPLES, _EPOCHS, _BATCH = 5000, 12, 64
# Above this a face counts as wearing them: rather one face too few than spectacles in the data.
_WORN = 0.25


def mark_plain(faces: DriverCrops, folder: Path, examples: int = _EXAMPLES, seed: int = 0) -> NDArray[np.bool_]:
    """Find out which faces wear nothing before their eyes, and write it to `plain.npy` in a folder.

    Args:
        faces: all of them.
        folder: where they lie.
        examples: how many drawings to learn from.
        seed: of everything random.

    Returns:
        bool [N].
    """
    import keras

    keras.utils.set_random_seed(seed)
    rng, maker = np.random.default_rng(seed), TripletMaker(faces)
    drawn = [maker.spectacled(rng) for _ in range(examples)]
    network = _network()
    network.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy")
    inputs, labels = np.stack([_band(image) for image, _ in drawn]), np.array([worn for _, worn in drawn], np.float32)
    network.fit(inputs, labels, batch_size=_BATCH, epochs=_EPOCHS, verbose=0)
    bands = np.stack([_band(maker.plainly_cut(index)) for index in range(len(faces.clips))])
    is_plain = np.asarray(network.predict(bands, batch_size=_BATCH, verbose=0))[:, 0] < _WORN
    np.save(folder / "plain.npy", is_plain)
    return is_plain


def _network() -> Any:
    from keras import Sequential, layers

    rows, columns = (band.stop - band.start for band in _BAND)
    return Sequential(
        [
            layers.Input((rows, columns, 1)),
            layers.Conv2D(16, 3, 2, activation="relu"),
            layers.Conv2D(32, 3, 2, activation="relu"),
            layers.Conv2D(48, 3, 2, activation="relu"),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dropout(0.2),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def _band(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    assert image.shape[0] == SIDE
    return cv2.cvtColor(image[_BAND], cv2.COLOR_BGR2GRAY)[..., None].astype(np.float32) / np.float32(255)
