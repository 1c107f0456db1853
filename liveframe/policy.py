"""The limits of one live pipeline."""

from dataclasses import dataclass, field

from liveframe.gate import GatePolicy


@dataclass(frozen=True, slots=True)
class PipelinePolicy:
    """Time limits, in seconds, and bounds of one pipeline.

    Attributes:
        gate: how what may not be shown is covered.
        deadline_s: how long one frame's answer is waited for; at most gate.hold_s.
        hang_s: a model that works on one frame for longer is abandoned.
        load_s: a model that takes longer to warm up is abandoned.
        max_abandoned: how many hung threads may exist before no fresh one is started.
        in_flight: frames at the model at once, for sessions that can (SplitSession).
    """

    gate: GatePolicy = field(default_factory=GatePolicy)
    deadline_s: float = 0.25
    hang_s: float = 1.0
    load_s: float = 120.0
    max_abandoned: int = 3
    in_flight: int = 3

    def __post_init__(self) -> None:
        if not 0 < self.deadline_s <= self.gate.hold_s:
            raise ValueError(
                f"deadline_s must be above 0 and at most hold_s ({self.gate.hold_s}), but got {self.deadline_s}. "
                "Raise gate.hold_s with it, so that the last picture bridges one deadline."
            )
        if self.hang_s < self.deadline_s:
            raise ValueError(
                f"hang_s must be at least deadline_s, but got {self.hang_s} < {self.deadline_s}. Raise it."
            )
