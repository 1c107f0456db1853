"""Tests that `test_nothing_leaves` runs in a network of its own are not run a second time beside it."""

import pytest

from tests.support.outside import what_is_missing

ENTRY_POINTS = {
    "convert": "integration/test_convert_command.py::test_faces_become_the_persona_and_the_result_is_marked",
    "camera": "integration/test_camera.py::test_every_frame_is_swapped_or_covered_and_none_is_raw",
    "evaluate": "integration/test_evaluate.py::test_one_json_object_a_clip_and_persona_and_files_to_look_at",
    "local server": "integration/test_serving_processes.py::test_local_server_serves_the_same_without_googles_sdk",
    "model server": "integration/test_serving_processes.py::test_entry_point_serves_a_bundle_from_cloud_storage",
    "legacy routine": "integration/test_serving_build.py::test_legacy_source_package_predicts_whole_frames",
    "training": "integration/test_training.py::test_training_is_told_to_mlflow_and_gets_its_alias",
    "app": "browser/test_live_page.py::test_shipped_persona_replaces_the_face_and_nothing_else",
    "studio": "browser/test_studio_page.py::test_an_uploaded_photo_plays_in_the_returned_pixels",
    "sockets of foreign pages": "integration/test_ui_guard.py::test_sockets_of_foreign_pages_are_refused_at_once",
}


@pytest.hookimpl(trylast=True)  # after -k and -m have chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave them out where their recorded run is among what is run."""
    if not any(item.path.name == "test_nothing_leaves.py" for item in items) or what_is_missing():
        return
    chosen = {item.name for item in items if item.path.name == "test_nothing_leaves.py"}
    recorded = {f"tests/{test}" for name, test in ENTRY_POINTS.items() if any(f"[{name}]" in each for each in chosen)}
    twice = [item for item in items if item.nodeid in recorded]
    config.hook.pytest_deselected(items=twice)
    items[:] = [item for item in items if item not in twice]
