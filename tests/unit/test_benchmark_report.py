"""The report's tables in the docs: figures where they belong, nothing that was not measured."""

from benchmarks.harness.report_text import as_markdown

REPORT = {
    "machine": {"processor": "X", "cores": 2, "load_average": [0.5, 0, 0]},
    "load_average_after": [1.5, 0, 0],
    "networks.ours.2_threads_p50_ms": 6.5,
    "networks.classic64.keras_predict_p50_ms": 130.04,
    "networks.ratio.ours_to_classic64_keras_fps": 20.0,
    "whole_path.480p_camera_30_fps.dropped_frames": 3,
    "whole_path.480p_1_faces.fps": 60.0,
    "whole_path.480p_1_faces.network_p95_ms": 10.6,
    "whole_path.growth.pixels_exponent": 0.04,
}


def test_rows_have_their_figures_and_ratios_follow_as_a_list() -> None:
    text = as_markdown(REPORT)
    assert "|   | ours | classic64 |\n|---|--:|--:|" in text
    assert "| Keras predict() |   | 130 |" in text and "| as shipped, 2 | 6.5 |   |" in text
    assert "- ratio: ours_to_classic64_keras_fps 20" in text
    assert "| 480p_camera_30_fps |   | 3 |" in text
    assert "network 95 |\n|---|--:|\n| 480p_1_faces | 10.6 |" in text
    assert text.count("- growth: pixels_exponent 0.04") == 1
    assert "load average 0.5 before and 1.5 after" in text


def test_waits_of_a_request_stand_beside_its_rate() -> None:
    row = {"requests_per_s": 140.0, "faces_per_s": 140.0, "wait_p50_ms": 12.0, "wait_p95_ms": 22.0}
    text = as_markdown(REPORT | {f"serving.raw_batch_1.{figure}": value for figure, value in row.items()})
    assert "| raw_batch_1 | 140 | 140 | 12 | 22 |" in text


def test_tables_that_did_not_run_are_left_out() -> None:
    assert "Serving" not in as_markdown(REPORT) and "Training" not in as_markdown(REPORT)
