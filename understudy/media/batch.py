"""Many sources and many personas: which results there are to make, and where each goes."""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from liveframe.errors import LiveframeError
from understudy.media.guard import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS

_PATTERN = frozenset("*?[")


class BatchError(LiveframeError, ValueError):
    """What was asked for names no clip or photo, or no place for the results."""


@dataclass(frozen=True, slots=True)
class Task:
    """One result to make.

    Attributes:
        source: a clip or a photo.
        target: where the result goes.
        persona: what was asked for: a name or title; empty for the bundle's first.
    """

    source: Path
    target: Path
    persona: str


def is_photo(path: Path) -> bool:
    """Whether a file is a photo, by its name."""
    return path.suffix.lower() in IMAGE_EXTENSIONS


def find_sources(given: Sequence[Path]) -> list[tuple[Path, Path]]:
    """List clips and photos: (path, its place below the folder that was named).

    Args:
        given: files, folders (searched to the bottom; hidden files are passed over), and patterns with * ? [ ].

    Raises:
        BatchError: a path does not exist, or there is nothing to convert.
    """
    found: dict[Path, Path] = {}
    for path in given:
        if path.is_dir():
            inside = sorted(each for each in path.rglob("*") if each.is_file() and _is_media(each.relative_to(path)))
            found |= {each: each.relative_to(path) for each in inside}
        elif path.exists():
            found[path] = Path(path.name)
        elif _PATTERN & set(str(path)):
            matches = sorted(Path(each) for each in glob.glob(str(path), recursive=True))
            found |= {each: Path(each.name) for each in matches if each.is_file() and _is_media(Path(each.name))}
        else:
            raise BatchError(f"'{path}' must be a clip, a photo or a folder, but does not exist. Check the path.")
    if not found:
        names = ", ".join(f"'{path}'" for path in given)
        raise BatchError(f"{names} must hold clips or photos, but there are none. Check the path.")
    return list(found.items())


def plan(sources: Sequence[tuple[Path, Path]], folder: Path, personas: Sequence[str], clip_suffix: str) -> list[Task]:
    """Return one task for each source and persona: FOLDER/PLACE-PERSONA.mp4, or .jpg for photos.

    Args:
        sources: as `find_sources` gives them.
        folder: where results go.
        personas: names or titles; at least one, empty for the bundle's first.
        clip_suffix: of clips' results, for one ".mp4".
    """
    places = Counter(_place(place) for _, place in sources)
    tasks: list[Task] = []
    for persona in personas:
        ending = (
            "-" + "".join(sign if sign.isalnum() else "-" for sign in persona.casefold()) if persona else "-swapped"
        )
        for source, place in sources:
            # a.mov beside a.mp4: each keeps its own ending in the name
            stem = place.name if places[_place(place)] > 1 else place.stem
            suffix = clip_suffix if not is_photo(source) else ".png" if place.suffix.lower() == ".png" else ".jpg"
            tasks.append(Task(source, folder / place.parent / f"{stem}{ending}{suffix}", persona))
    return tasks


def _place(place: Path) -> tuple[Path, bool]:
    return place.with_suffix(""), is_photo(place)


def _is_media(path: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in path.parts)
    return not is_hidden and path.suffix.lower() in (*IMAGE_EXTENSIONS, *VIDEO_EXTENSIONS)
