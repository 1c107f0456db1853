"""Reports as a table to read: one row for each, and their means."""

import math
from collections.abc import Iterator, Mapping, Sequence

from training.evaluation.clip_report import FIGURES, ClipReport, mean

# Figure: its title, nine letters at most.
COLUMNS = {
    "clip": "clip",
    "persona": "persona",
    "coverage": "coverage",
    "identity_to_persona": "like_pers",
    "identity_to_driver": "like_driv",
    "recognised_as_persona": "is_person",
    "recognised_as_driver": "is_driver",
    "retrieval_rank1": "retrieval",
    "pose_motion_deg": "pose_deg",
    "mouth_motion_pct": "mouth_pct",
    "eyes_motion_pct": "eyes_pct",
    "mouth_followed": "mouth_r2",
    "eyes_followed": "eyes_r2",
    "gaze_pct": "gaze_pct",
    "jitter_ratio": "jitter",
    "flicker_ratio": "flicker",
    "background_jitter_ring": "ring_pct",
    "self_ssim": "self_ssim",
    "self_delta_e": "self_dE",
    "self_relit_delta_e": "relit_dE",
    "ms_p50": "ms_p50",
}


def head() -> str:
    """Return the table's head."""
    return "  ".join(f"{title:<20}" if key in ("clip", "persona") else f"{title:>9}" for key, title in COLUMNS.items())


def means(reports: Sequence[ClipReport]) -> dict[str, float]:
    """Return the mean of every figure over reports; NaN where none of them could measure it."""
    return {name: mean([getattr(report, name) for report in reports]) for name in FIGURES}


def mean_rows(reports: Sequence[ClipReport]) -> Iterator[str]:
    """Yield the table's last rows: the mean, and drivers with and without spectacles apart."""
    by_title = {"mean": list(reports)}
    if any(report.has_spectacles for report in reports):
        by_title["with spectacles"] = [report for report in reports if report.has_spectacles]
        by_title["without"] = [report for report in reports if not report.has_spectacles]
    for title, some in by_title.items():
        if some:
            yield _line({"clip": title, "persona": f"{len(some)} pairs", **means(some)})


def row(report: ClipReport) -> str:
    """Return a report's row."""
    return _line(report.figures())


def _line(figures: Mapping[str, object]) -> str:
    return "  ".join(_cell(figures[key]) for key in COLUMNS)


def _cell(value: object) -> str:
    if isinstance(value, str):
        return f"{value:<20}"
    return f"{value:>9.3f}" if isinstance(value, float) and math.isfinite(value) else f"{'-':>9}"
