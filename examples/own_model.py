"""Your own frame model behind the live pipeline: `uv run python -m examples.own_model`.

Any class with these four methods may be relayed. The pipeline runs it on a thread of its own, drops the older frame
where two wait, and shows a cover instead of the camera whenever the model fails, is late or found more than it did.
"""

import numpy as np

from liveframe import Frame, FramePipeline, FrameResult, ShownState


class Negative:
    """Shows every picture as its negative. Shared by all viewers: it keeps nothing."""

    def warm_up(self) -> None:
        """Load what is needed; nothing here."""

    def open_session(self) -> "Negative":
        """Start one viewer's stream; a model that remembers frames returns a fresh object."""
        return self

    def process(self, frame: Frame) -> FrameResult:
        """Answer one frame: uint8 [H, W, 3], BGR, in a new array."""
        return FrameResult(255 - frame.image, frame.index, subjects_found=1, subjects_done=1)

    def close(self) -> None:
        """End the stream."""


def main(frames: int = 60) -> dict[ShownState, int]:
    """Relay so many frames of noise; returns how many were shown in which state."""
    counts: dict[ShownState, int] = {}
    random = np.random.default_rng(0)
    with FramePipeline(Negative()) as pipeline:
        for _ in range(frames):
            shown = pipeline.process(random.integers(0, 256, (120, 160, 3), np.uint8))
            counts[shown.state] = counts.get(shown.state, 0) + 1
    return counts


if __name__ == "__main__":
    print({state.value: count for state, count in main().items()})
