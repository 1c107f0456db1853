"""The clips that a viewer gave to Convert: each in a folder of its own, with the job that works on it."""

import json
import re
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ui.parts.job_card import Pace, words_for_eta
from ui.parts.job_entry import job_command
from ui.parts.uploads import Upload, keep_upload
from ui.session.workspace import Workspace, discard, job_queue
from understudy.jobs.queue import PROGRESS, JobError, JobState, module_command, write_json
from understudy.swap.settings import SwapSettings

_NOTE = "conversion.json"
_PHASES = {"joining": "Joining the pieces and signing…", "done": "Done."}


@dataclass(frozen=True, slots=True)
class PersonaChoice:
    """Who plays in a clip.

    Attributes:
        name: the persona's.
        title: what people read.
        bundle: where its network lies, or what else is needed where it has none.
        thumbnail: its picture.
        photo_persona: the folder of its still, where that plays.
    """

    name: str
    title: str
    bundle: Path
    thumbnail: Path
    photo_persona: Path | None = None


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a clip is to be converted.

    Attributes:
        faces: "all" or "largest".
        strength: 0 to 1.
        cover: what hides a frame that cannot be swapped: "blur", "slate" or "hold".
        no_face: what becomes of a frame in which no face was seen: "cover" or "keep".
        colour_match, shape, own_eyes, keep_occluders: as SwapSettings has them.
    """

    faces: str = "all"
    strength: float = 1.0
    cover: str = "blur"
    no_face: str = "cover"
    colour_match: bool = True
    own_eyes: bool = SwapSettings().own_eyes
    shape: float = SwapSettings().shape
    keep_occluders: bool = SwapSettings().keep_occluders

    def options(self) -> tuple[str, ...]:
        """The same for `understudy.convert`."""
        kept = "--keep-occluders" if self.keep_occluders else "--no-keep-occluders"
        blend = ("--colour-match", str(float(self.colour_match)), "--shape", str(self.shape), kept)
        blend += ("--own-eyes",) if self.own_eyes else ()
        picked = ("--faces", self.faces, "--strength", str(self.strength))
        return (*picked, *blend, "--cover", self.cover, "--no-face", self.no_face)


@dataclass(frozen=True, slots=True)
class ClipEntry:
    """One clip in the list.

    Attributes:
        folder: holds everything about it.
        title: the clip's name on the sender's machine.
        persona_title: who plays.
        source: the upload.
        target: the result, once it is there.
        job_id: the job's.
    """

    folder: Path
    title: str
    persona_title: str
    source: Path
    target: Path
    job_id: str


def submit(workspace: Workspace, upload: Upload, choice: PersonaChoice, wishes: Wishes) -> ClipEntry:
    """Keep a clip and put its conversion at the end of the queue.

    Raises:
        MediaError: its first bytes are no clip's.
    """
    folder = workspace.clips / f"{time.time_ns() // 1_000_000:014d}-{secrets.token_hex(4)}"
    try:
        source = keep_upload(upload, folder, "clip")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    title, target = Path(upload.name).name, folder / "swapped.mp4"
    photo_persona = ("--photo_persona", choice.photo_persona.resolve()) if choice.photo_persona else ()
    who = ("--persona", choice.name, "--bundle", choice.bundle.resolve(), *photo_persona)
    options = (*who, *wishes.options(), "--progress", PROGRESS)
    command = module_command("understudy.convert", source, target, *options)
    job = job_queue().submit("convert", f"{title} as {choice.title}", job_command(command, vet=[source]))
    entry = ClipEntry(folder, title, choice.title, source, target, job.id)
    write_json(folder / _NOTE, {key: str(value) for key, value in asdict(entry).items() if key != "folder"})
    return entry


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
    return re.sub(r"[^\w.]+", "-", words).strip("-").lower() + ".mp4"


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
