"""Pictures of a faceset to look at: faces by person and yaw, and the histogram of poses."""

from collections.abc import Sequence

import cv2
import numpy as np

from liveframe.frame import Image
from understudy.draw.contact_sheet import contact_sheet, stack_sheets
from understudy.faceset.entry import FaceEntry
from understudy.faceset.faceset import Faceset

SHEET, POSES = "sheet.jpg", "poses.png"
_COLUMNS, _ROWS = 16, 3
_PEOPLE = 8
_RARE = 3  # people with fewer faces share one sheet


def write_sheets(faceset: Faceset) -> None:
    """Write sheet.jpg and poses.png into the faceset's directory."""
    cv2.imwrite(str(faceset.root / SHEET), people_sheet(faceset), [cv2.IMWRITE_JPEG_QUALITY, 90])
    cv2.imwrite(str(faceset.root / POSES), pose_histogram(faceset))


def people_sheet(faceset: Faceset) -> Image:
    """Lay out faces person by person, from one profile to the other, with their yaw in degrees.

    Args:
        faceset: not empty.

    Returns:
        uint8 [H, W, 3], BGR.
    """
    people = faceset.identities
    common = [number for number, faces in people.items() if faces >= _RARE][:_PEOPLE]
    rare = [entry for entry in faceset if entry.identity not in common]
    groups = [(f"person {number}", [entry for entry in faceset if entry.identity == number]) for number in common]
    groups += [(f"{len(people) - len(common)} other people", rare)] if rare else []
    return stack_sheets([_sheet(faceset, title, entries) for title, entries in groups])


def _sheet(faceset: Faceset, title: str, entries: Sequence[FaceEntry]) -> Image:
    """Show faces evenly spread over the group's order by yaw."""
    ordered = sorted(entries, key=lambda entry: entry.pose.yaw)
    places = np.linspace(0, len(ordered) - 1, min(len(ordered), _COLUMNS * _ROWS)).round().astype(int)
    shown = [ordered[place] for place in places]
    sources = len({entry.source for entry in entries})
    return contact_sheet(
        [faceset.crop(entry) for entry in shown],
        columns=_COLUMNS,
        title=f"{title}: {len(entries)} faces of {sources} files, by yaw",
        labels=[f"{entry.pose.yaw:+.0f}" for entry in shown],
    )


def pose_histogram(faceset: Faceset, step_deg: int = 5, cell: int = 16) -> Image:
    """Draw how many faces look where: yaw from left to right, pitch upwards, -60 to 60 degrees, straight at the cross.

    Returns:
        uint8 [H, W, 3], BGR; brighter cells hold more faces (logarithmic).
    """
    edges = np.arange(-60, 60 + step_deg, step_deg)
    yaw = np.clip([entry.pose.yaw for entry in faceset], -59.9, 59.9)
    pitch = np.clip([entry.pose.pitch for entry in faceset], -59.9, 59.9)
    counts = np.histogram2d(-pitch, yaw, bins=(edges, edges))[0]
    levels = (np.log1p(counts) / max(float(np.log1p(counts).max()), 1e-6) * 255).astype(np.uint8)
    large = cv2.resize(levels, None, fx=cell, fy=cell, interpolation=cv2.INTER_NEAREST)
    picture = cv2.applyColorMap(large, cv2.COLORMAP_VIRIDIS)
    middle = picture.shape[0] // 2
    cv2.drawMarker(picture, (middle, middle), (255, 255, 255), cv2.MARKER_CROSS, cell)
    return picture.astype(np.uint8)
