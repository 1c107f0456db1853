"""Errors that live pipelines raise. Each message is a sentence that a user can act on."""


class LiveframeError(Exception):
    """The root of this package's errors."""


class FrameError(LiveframeError, ValueError):
    """A frame, batch or result has the wrong shape, dtype or size."""


class ModelError(LiveframeError, RuntimeError):
    """A model could not be loaded, warmed up or run."""


class WireError(LiveframeError, ValueError):
    """A request or an answer does not follow the wire format."""


class OverloadedError(LiveframeError, RuntimeError):
    """A server refuses work for now.

    Attributes:
        retry_after_s: how long it asks us to wait, in seconds.
    """

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LateError(ModelError):
    """A model or server gave no answer by the deadline."""
