"""The report's tables in the docs: figures where they belong, nothing that was not measured."""

from benchmarks.report_text import as_markdown

REPORT = {
    "machine": {"processor": "X", "cores": 2, "load_average": [0.5, 0, 0]},
    "load_average_after": [1.5, 0, 0],
    "networks.ours.2_threads_p50_ms": 6.5,
    "networks.classic64.keras_predict_p50_ms": 130.04,
    "networks.ratio.ours_to_classic64_keras_fps": 20.0,
    "whole_path.480p_camera_30_fps.dropped_frames": 3,
}


def test_rows_have_their_figures_and_ratios_follow_as_a_list() -> None:
    text = as_markdown(REPORT)
    assert "|   | ours | classic64 |\n|---|--:|--:|" in text
    assert "| Keras predict() |   | 130 |" in text and "| as shipped, 2 | 6.5 |   |" in text
    assert "- ratio: ours_to_classic64_keras_fps 20" in text
    assert "| 480p_camera_30_fps | 3 |" in text
    assert "load average 0.5 before and 1.5 after" in text


def test_tables_that_did_not_run_are_left_out() -> None:
    assert "Serving" not in as_markdown(REPORT) and "Training" not in as_markdown(REPORT)
