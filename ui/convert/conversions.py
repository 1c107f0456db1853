"""The clips that a viewer gave to Convert: each in a folder of its own, with the job that works on it."""

import json
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from liveframe.errors import LiveframeError
from liveframe.frame import Image
from ui.parts.job_card import Pace, words_for_eta
from ui.parts.job_entry import job_command
from ui.parts.uploads import Upload, keep_upload, safe_stem
from ui.session.workspace import Workspace, discard, job_queue
from understudy.jobs.atomic_file import write_json
from understudy.jobs.queue import PROGRESS, ROOT, JobError, JobState, module_command
from understudy.media.batch import is_photo
from understudy.media.encoding import QUALITY
from understudy.media.guard import TRUSTED_LIMITS, UPLOAD_LIMITS, MediaError, check_first_bytes, read_upload_frames
from understudy.swap.settings import SwapSettings

_NOTE = "conversion.json"
_PREVIEW_LIMIT_S = 180.0
_PHASES = {"joining": "Joining the pieces and signing…", "done": "Done."}


class ConversionError(LiveframeError, RuntimeError):
    """A conversion that somebody waits for failed; says why."""


@dataclass(frozen=True, slots=True)
class PersonaChoice:
    """Who plays in a clip.

    Attributes:
        name: the persona's.
        title: what people read.
        bundle: holds it, or the mixing network that plays its photo.
        thumbnail: its picture.
        photo_persona: the folder of its photo, of a persona that is in no bundle.
    """

    name: str
    title: str
    bundle: Path
    thumbnail: Path
    photo_persona: Path | None = None


FORMATS = {"mp4": "MP4", "webm": "WebM", "gif": "GIF", "mov": "MOV (ProRes)"}


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a clip is to be converted.

    Attributes:
        faces: "all" or "largest".
        strength: 0 to 1.
        cover: what hides a frame that cannot be swapped: "blur", "slate" or "hold".
        no_face: what becomes of a frame in which no face was seen: "cover" or "keep".
        colour_match, shape, own_eyes, own_mouth, keep_occluders: as SwapSettings has them.
        form: one of `FORMATS`; photos have their own.
        quality: 1 to 100.
        height: px; 0: as the source.
        start_s, end_s: which part, in seconds; the end is 0 for all of it.
    """

    faces: str = "all"
    strength: float = 1.0
    cover: str = "blur"
    no_face: str = "cover"
    colour_match: bool = True
    own_eyes: bool = SwapSettings().own_eyes
    own_mouth: bool = SwapSettings().own_mouth
    shape: float = SwapSettings().shape
    keep_occluders: bool = SwapSettings().keep_occluders
    form: str = "mp4"
    quality: int = QUALITY
    height: int = 0
    start_s: float = 0.0
    end_s: float = 0.0

    def options(self, is_photo: bool = False) -> tuple[str, ...]:
        """The same for `understudy.convert`."""
        kept = "--keep-occluders" if self.keep_occluders else "--no-keep-occluders"
        blend = ("--colour-match", str(float(self.colour_match)), "--shape", str(self.shape), kept)
        blend += ("--own-eyes",) if self.own_eyes else ()
        blend += ("--own-mouth",) if self.own_mouth else ()
        picked = ("--faces", self.faces, "--strength", str(self.strength))
        part = ("--height", str(self.height))
        if not is_photo:
            part += ("--quality", str(self.quality), "--start", str(self.start_s))
            part += ("--end", str(self.end_s)) if self.end_s else ()
            part += ("--codec", "prores") if self.form == "mov" else ()
        return (*picked, *blend, "--cover", self.cover, "--no-face", self.no_face, *part)


@dataclass(frozen=True, slots=True)
class ClipEntry:
    """One clip or photo in the list.

    Attributes:
        folder: holds everything about it.
        title: the file's name on the sender's machine.
        persona_title: who plays.
        source: the upload, or a file of whoever runs the app.
        target: the result, once it is there.
        job_id: the job's.
    """

    folder: Path
    title: str
    persona_title: str
    source: Path
    target: Path
    job_id: str


def keep_source(workspace: Workspace, upload: Upload | Path) -> tuple[Path, Path]:
    """Make a folder for one conversion and keep its source there; gives (folder, source).

    Args:
        workspace: the viewer's.
        upload: what they sent; or the path of a file on the app's own machine, which stays where it is.

    Raises:
        MediaError: its first bytes are no clip's and no photo's.
    """
    folder = workspace.clips / f"{time.time_ns() // 1_000_000:014d}-{secrets.token_hex(4)}"
    try:
        if isinstance(upload, Path):
            check_first_bytes(upload, TRUSTED_LIMITS)
            folder.mkdir(mode=0o700, parents=True)
            return folder, upload.resolve()
        return folder, keep_upload(upload, folder, safe_stem(upload.name))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def submit(workspace: Workspace, upload: Upload | Path, choice: PersonaChoice, wishes: Wishes) -> ClipEntry:
    """Keep a clip or photo and put its conversion at the end of the queue.

    Raises:
        MediaError: its first bytes are no clip's and no photo's.
    """
    folder, source = keep_source(workspace, upload)
    return _submit(folder, source, Path(upload.name).name, choice.title, command_for(choice), wishes)


def again(entry: ClipEntry, workspace: Workspace, changed: Mapping[str, str]) -> ClipEntry:
    """Convert the same source once more, with options changed: {option: value}."""
    job = job_queue().job(entry.job_id)
    command = list(job.command[job.command.index("--") + 1 :])
    for option, value in changed.items():
        command[command.index(option) + 1] = value
    folder = workspace.clips / f"{time.time_ns() // 1_000_000:014d}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700, parents=True)
    source = entry.source
    if source.is_relative_to(entry.folder):
        source = folder / source.name
        shutil.copyfile(entry.source, source)
    target = folder / entry.target.name
    command = [{str(entry.source): str(source), str(entry.target): str(target)}.get(part, part) for part in command]
    return _queued(folder, source, target, entry.title, entry.persona_title, command)


def command_for(choice: PersonaChoice) -> tuple[str, ...]:
    """Give the options of `understudy.convert` that name who plays."""
    photo = ("--photo-persona", str(choice.photo_persona.resolve())) if choice.photo_persona else ()
    return ("--persona", choice.name, "--bundle", str(choice.bundle.resolve()), *photo)


def _submit(
    folder: Path, source: Path, title: str, persona_title: str, who: tuple[str, ...], wishes: Wishes
) -> ClipEntry:
    is_picture = is_photo(source)
    suffix = (".png" if source.suffix.lower() == ".png" else ".jpg") if is_picture else f".{wishes.form}"
    target = folder / f"swapped{suffix}"
    options = (*who, *wishes.options(is_picture), "--progress", PROGRESS)
    command = module_command("understudy.convert", source, target, *options)
    return _queued(folder, source, target, title, persona_title, command)


def _queued(
    folder: Path, source: Path, target: Path, title: str, persona_title: str, command: Sequence[str]
) -> ClipEntry:
    vet = [source] if source.is_relative_to(folder) else []
    job = job_queue().submit("convert", f"{title} as {persona_title}", job_command(command, vet=vet))
    entry = ClipEntry(folder, title, persona_title, source, target, job.id)
    write_json(folder / _NOTE, {key: str(value) for key, value in asdict(entry).items() if key != "folder"})
    return entry


def preview(source: Path, folder: Path, choice: PersonaChoice, wishes: Wishes, at_s: float, is_own: bool) -> Path:
    """Convert one frame of a clip, or a photo, while the caller waits; some seconds.

    Args:
        source: the clip or photo.
        folder: where the picture goes.
        choice: who plays.
        wishes: how.
        at_s: which frame, in seconds.
        is_own: whether the source is a file of whoever runs the app; all others are vetted first.

    Raises:
        ConversionError: it cannot be done; says why.
    """
    target = folder / f"preview-{secrets.token_hex(4)}.jpg"
    wishes = replace(wishes, start_s=at_s, end_s=0.0, form="mp4")
    part = () if is_photo(source) else ("--preview", str(target))
    paths = (source, target) if is_photo(source) else (source,)
    command = module_command("understudy.convert", *paths, *part, *command_for(choice), *wishes.options(not part))
    vetted = job_command(command, vet=[] if is_own else [source])
    try:
        ended = subprocess.run(vetted, capture_output=True, text=True, timeout=_PREVIEW_LIMIT_S, check=False, cwd=ROOT)
    except subprocess.TimeoutExpired as error:
        raise ConversionError("The preview took too long. Convert a short part instead.") from error
    if ended.returncode or not target.is_file():
        said = [line for line in ended.stderr.splitlines() if line.strip()]
        raise ConversionError(said[-1] if said else "The preview failed. Convert a short part instead.")
    return target


def outcome(entry: ClipEntry) -> dict[str, Any]:
    """What a finished conversion said of itself: counts, scenes that were not swapped, notes."""
    told = job_queue().progress(entry.job_id)
    return {name: told.get(name) or empty for name, empty in (("tally", {}), ("scenes", []), ("notes", []))}


def scene_picture(entry: ClipEntry, at_s: float) -> Image | None:
    """A small picture of the source at a time: uint8 [H, 160, 3] BGR; None where it cannot be read."""
    limits = UPLOAD_LIMITS if entry.source.is_relative_to(entry.folder) else TRUSTED_LIMITS
    with suppress(MediaError, OSError), closing(read_upload_frames(entry.source, limits, from_s=at_s)) as frames:
        for time_s, image in frames:
            if time_s >= at_s - 0.02:
                return np.asarray(cv2.resize(image, (160, max(1, 160 * image.shape[0] // image.shape[1]))), np.uint8)
    return None


def entries(workspace: Workspace) -> list[ClipEntry]:
    """The viewer's clips, newest first."""
    found: list[ClipEntry] = []
    for note in sorted(workspace.clips.glob(f"*/{_NOTE}"), reverse=True):
        with suppress(ValueError, KeyError, TypeError):  # a torn note: the clip is not listed
            stored = json.loads(note.read_text())
            paths = {name: Path(stored.pop(name)) for name in ("source", "target")}
            found.append(ClipEntry(folder=note.parent, **paths, **stored))
    return found


def remove(entry: ClipEntry) -> None:
    """Forget a clip: the upload, the result and the job."""
    discard(entry.folder)
    with suppress(JobError):  # its process still ends: the job stays in the queue's own list
        job_queue().remove(entry.job_id)


def result_name(entry: ClipEntry) -> str:
    """What the result is called when it is downloaded: it says by its name what it is."""
    words = f"{Path(entry.title).stem} as {entry.persona_title} ai modified"
    return re.sub(r"[^\w.]+", "-", words).strip("-").lower() + entry.target.suffix


def pace(job_id: str, state: JobState) -> Pace:
    """How far a conversion is."""
    told = job_queue().progress(job_id)
    frames, total = int(told.get("frames") or 0), int(told.get("total") or 0)
    if told.get("phase") in _PHASES:
        return Pace(1.0, _PHASES[str(told["phase"])])
    if not frames:
        return Pace(0.0, "Checking the clip…" if state is JobState.RUNNING else "")
    eta = words_for_eta(told.get("eta_s")) if state is JobState.RUNNING else ""
    of = f" of {total}" if total else ""
    share = frames / total if total else None
    return Pace(share, ", ".join(filter(None, [f"{frames}{of} frames", eta])))
