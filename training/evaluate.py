"""How good are a bundle's personas on held-out clips: figures, a plot, and clips to look at.

    uv run python -m training.evaluate CLIP...
    uv run python -m training.evaluate --bundle models:/understudy@challenger --persona ada --json --out out CLIP...
    uv run python -m training.evaluate --photo FACE.jpg --gallery FACES_FOLDER CLIP...
    uv run python -m training.evaluate --self CLIP...

--photo measures a persona made of one photo, with no training; --self one made of the clip's own first clear frame, so
that the right answer is the clip. Of both only figures are given, nothing is written.
With --json, one object per clip and persona on stdout (its keys: training.evaluation.clip_report.ClipReport);
else a table. Progress goes to stderr. Exit status 2 where a bundle, persona or clip is refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from liveframe.errors import LiveframeError
from liveframe.frame import Frame
from liveframe.model import FrameModel, FrameSession
from training.evaluation.clip_report import ClipReport, mean
from training.evaluation.distractors import Distractors, embed_folder
from training.evaluation.measure import Driver, Gallery, SwapMeter, watch
from training.evaluation.observer import Observer
from training.evaluation.self_swap import likeness, relit
from training.evaluation.side_by_side import Disclosed, SideBySide, plot_reports
from training.evaluation.subject import OneShot, Subject, photo_subject, picture_subject
from training.evaluation.table import head, mean_rows, row
from understudy.consent.trust_store import trust_folder
from understudy.media.clip import ClipFrame, describe, read_frames
from understudy.media.guard import MediaError
from understudy.vision.model_files import WeightsError

if TYPE_CHECKING:
    from understudy.bundle.bundle import Bundle, PersonaInfo
    from understudy.vision.embedding import Embedding

# From this cosine (SFace) on, a stranger of the gallery is the persona's own picture, or the persona's twin.
_OWN_PICTURE = 0.8
SELF = "self"


class Evaluator:
    """Watches clips once, then measures any number of bundles on them. Not thread-safe.

    Args:
        clips: videos with a face; the largest face drives.
        every: identity, gaze, the seam and the second opinion are measured on every n-th frame.
        limit: frames to take of each clip; 0 takes all.
        is_quiet: whether to show no progress.
        trust: folder of the keys that side-by-side clips are signed by; UNDERSTUDY_HOME or ~/.understudy.
        is_instant: measure the personas' references painted without any network.
        gallery: a folder of strangers' faces to retrieve the personas from, beside personas and drivers.
        cache: where the strangers' embeddings are kept; `~/.cache/understudy/galleries` where None.
        spectacles: names of the clips (with or without suffix) whose drivers wear spectacles.

    Raises:
        MediaError: a clip is missing or broken, or the gallery holds no face.
    """

    def __init__(
        self,
        clips: Sequence[Path],
        every: int = 5,
        limit: int = 0,
        is_quiet: bool = False,
        trust: Path | None = None,
        is_instant: bool = False,
        gallery: Path | None = None,
        cache: Path | None = None,
        spectacles: Collection[str] = (),
    ) -> None:
        self._is_instant = is_instant
        self._observer = Observer()
        self._spectacles = {Path(name).stem for name in spectacles}
        self._strangers: Distractors | None = (
            embed_folder(gallery, self._observer, cache, is_quiet) if gallery else None
        )
        self._trust = trust or trust_folder(os.environ)
        self._limit = limit
        self._is_quiet = is_quiet
        self.drivers = tuple(
            watch(clip, self._observer, (f.image for f in self._frames(clip, f"watch {clip.name}")), every)
            for clip in clips
        )

    def run(self, bundle: Bundle, personas: Sequence[str] = (), out: Path | None = None) -> Iterator[ClipReport]:
        """Measure personas on every clip, one report at a time.

        Args:
            bundle: whose personas.
            personas: which; all of them where empty.
            out: where to write `CLIP-PERSONA.mp4`, `CLIP-PERSONA.json` and `CLIP.png`; nowhere where None. The clip
                is marked and signed; where consent does not cover recording, it is not written, and told on stderr.

        Raises:
            understudy.bundle.BundleError: the bundle has no such persona.
        """
        chosen = [bundle.persona(name) for name in personas] or list(bundle.personas)
        rows = self._personas(bundle)
        if out:
            out.mkdir(parents=True, exist_ok=True)
        for driver in self.drivers:
            reports: list[ClipReport] = []
            for persona in chosen:
                disclosed = self._disclosed(bundle, persona.name) if out else None
                gallery = self._gallery(rows, persona.name)
                session = _open_session(bundle, persona.name, self._is_instant)
                try:
                    reports.append(self.measure(session, driver, persona.name, gallery, bundle.digest, out, disclosed))
                finally:
                    session.close()
                yield reports[-1]
            if out and reports:
                plot_reports(reports, out / f"{driver.clip.stem}.png")

    def run_photos(self, photos: Sequence[Path], how: OneShot | None = None) -> Iterator[ClipReport]:
        """Measure personas of one photo each on every clip; only figures are given, nothing is written.

        Args:
            photos: pictures with a clear face; a persona's name is its file's.
            how: makes what paints a photo; without a mixing network where left out.

        Raises:
            MediaError: a photo cannot be read or shows no clear face.
        """
        subjects = [photo_subject(photo, self._observer, how or OneShot()) for photo in photos]
        for subject in subjects:
            yield from self.run_subject(subject)

    def run_subject(self, subject: Subject, *, is_driver: bool = False) -> Iterator[ClipReport]:
        """Measure any persona on every clip; only figures are given, nothing is written.

        Args:
            subject: the persona.
            is_driver: whether the clips show the persona itself: then the right answer is the clip.
        """
        for driver in self.drivers:
            gallery = self._gallery({subject.name: subject.identity}, subject.name, driver if is_driver else None)
            session = subject.model.open_session()
            try:
                yield self.measure(session, driver, subject.name, gallery, reference=-1 if is_driver else None)
            finally:
                session.close()

    def run_self(self, how: OneShot | None = None) -> Iterator[ClipReport]:
        """Swap every clip with its own first clear frame: the right answer is the clip; nothing is written.

        Clips without a clear face are left out.

        Args:
            how: as in `run_photos`.
        """
        how = how or OneShot()
        for driver in self.drivers:
            found = self._self_subject(driver, how)
            if found is not None:
                yield self._self_swap(driver, *found)

    def _self_subject(self, driver: Driver, how: OneShot) -> tuple[Subject, Subject, int] | None:
        """Return the persona of a clip's first clear frame, the same in another light, and which frame that is."""
        for frame in self._frames(driver.clip, f"reference of {driver.clip.name}"):
            subject = picture_subject(SELF, frame.image, self._observer, how)
            other = subject and picture_subject(SELF, frame.image, self._observer, how, relit)
            if subject is not None and other is not None:
                return subject, other, frame.index
        return None

    def _self_swap(self, driver: Driver, subject: Subject, other: Subject, reference: int) -> ClipReport:
        """Report one self-swap: `other` is the same person lit otherwise."""
        gallery = self._gallery({SELF: subject.identity}, SELF, driver)
        sessions = (subject.model.open_session(), other.model.open_session())
        try:
            report = self.measure(sessions[0], driver, SELF, gallery, reference=reference)
            steps: list[float] = []
            for frame in self._frames(driver.clip, f"{SELF}, lit otherwise, on {driver.clip.name}"):
                swapped = sessions[1].process(Frame(frame.image, frame.index, frame.time_s)).image
                seen = driver.frames[frame.index]
                if seen.embeddings and seen.observation is not None and frame.index > reference:
                    steps.append(likeness(frame.image, swapped, seen.observation.mesh)[1])
        finally:
            for session in sessions:
                session.close()
        return replace(report, self_relit_delta_e=mean(steps))

    def measure(
        self,
        session: FrameSession,
        driver: Driver,
        persona: str,
        gallery: Gallery,
        digest: str = "",
        out: Path | None = None,
        disclosed: Disclosed | None = None,
        reference: int | None = None,
    ) -> ClipReport:
        """Run one clip through any session and measure what comes out.

        Args:
            session: fresh; stays open.
            driver: one of `drivers`.
            persona: whom the session shows; one of the gallery's names.
            gallery: whom the swapped face is compared with.
            digest: the bundle's, for the report.
            out: where to write the side-by-side clip and the JSON; nowhere where None.
            disclosed: the clip's marks; without them no clip is written.
            reference: of a self-swap: which frame is the persona's picture; -1: none of the clip's.
        """
        meter = SwapMeter(driver, self._observer, gallery, persona, reference)
        stem = f"{driver.clip.stem}-{persona}"
        with ExitStack() as stack:
            film = None
            if out and disclosed:
                captions = (driver.clip.name, persona)
                film = SideBySide(out / f"{stem}.mp4", _rate_hz(driver.clip), captions, disclosed)
                stack.enter_context(film)
            for frame in self._frames(driver.clip, f"{persona} on {driver.clip.name}"):
                # The clip's own clock, so that tracks and filters behave as they do live.
                request = Frame(frame.image, frame.index, frame.time_s)
                start = time.perf_counter()
                swapped = session.process(request).image
                meter.add(frame.image, swapped, (time.perf_counter() - start) * 1000)
                if film:
                    film.add(frame.image, swapped)
        report = replace(meter.report(digest), has_spectacles=driver.clip.stem in self._spectacles)
        if out:
            (out / f"{stem}.json").write_text(json.dumps(report.figures(), indent=2, allow_nan=False) + "\n")
        return report

    def _disclosed(self, bundle: Bundle, persona: str) -> Disclosed | None:
        """The marks of a persona's clips; None, said on stderr, where there may be no clip of it."""
        try:
            return Disclosed.of(bundle, persona, self._trust)
        except LiveframeError as error:
            print(f"No side-by-side clip of {persona} is written: {error}", file=sys.stderr)
            return None

    def gallery(self, bundle: Bundle) -> Gallery:
        """Return everybody a swapped face could be taken for: the bundle's personas, the drivers, the strangers."""
        return self._gallery(self._personas(bundle))

    def _personas(self, bundle: Bundle) -> dict[str, Mapping[str, Embedding]]:
        return {persona.name: self._still_identity(persona) for persona in bundle.personas}

    def _gallery(
        self, personas: Mapping[str, Mapping[str, Embedding]], wanted: str = "", but: Driver | None = None
    ) -> Gallery:
        """Return a gallery, without further pictures of the persona wanted, and without one driver."""
        rows = dict(personas)
        rows |= {f"driver {driver.clip.name}": driver.identity for driver in self.drivers if driver is not but}
        names, strangers = list(rows), self._strangers
        own = personas.get(wanted, {}).get("sface")
        if strangers is not None and own is not None:
            strangers = strangers.without(own, _OWN_PICTURE)
        embeddings: dict[str, tuple[Embedding | None, ...]] = {}
        for embedder in self._observer.embedders:
            more = tuple(strangers.embeddings[embedder.name]) if strangers is not None else ()
            embeddings[embedder.name] = (*(row.get(embedder.name) for row in rows.values()), *more)
        return Gallery((*names, *(strangers.names if strangers is not None else ())), embeddings)

    def _still_identity(self, persona: PersonaInfo) -> dict[str, Embedding]:
        """Embed a persona's still; empty where no face is seen in it."""
        import cv2

        still = cv2.imread(str(persona.still))
        mesh = np.load(persona.mesh).astype(np.float32)
        if still is None or self._observer.observe(still, mesh) is None:
            return {}
        return dict(self._observer.embed(still, mesh))

    def _frames(self, clip: Path, title: str) -> Iterator[ClipFrame]:
        from tqdm import tqdm

        total = describe(clip).frames or 0
        total = min(total, self._limit) if self._limit else total
        bar = tqdm(desc=title, total=total or None, unit="frame", disable=self._is_quiet, file=sys.stderr)
        with bar:
            for frame in read_frames(clip):
                if self._limit and frame.index >= self._limit:
                    return
                yield frame
                bar.update()


def evaluate_clip(
    bundle: Bundle, persona: str, clip: Path, *, every: int = 5, limit: int = 0, out: Path | None = None
) -> ClipReport:
    """Measure one persona on one clip.

    Args:
        bundle: a loaded bundle.
        persona: the name of one of its personas.
        clip: a video with a face.
        every: identity, gaze, the seam and the second opinion are measured on every n-th frame.
        limit: frames to take; 0 takes all.
        out: where to write the side-by-side clip, the JSON and the plot; nowhere where None.

    Raises:
        understudy.bundle.BundleError: the bundle has no such persona.
        MediaError: the clip is missing or broken.
    """
    (report,) = Evaluator([clip], every, limit, is_quiet=True).run(bundle, [persona], out)
    return report


def _open_session(bundle: Bundle, persona: str, is_instant: bool) -> FrameSession:
    """Open a warm session that swaps every face to the persona, with the live path's own defaults."""
    from understudy.swap.renderer import one_shot_persona
    from understudy.swap.swapper import FaceSwapper, SwapSettings

    settings = SwapSettings(persona=persona, faces="all")
    renderers = {persona: one_shot_persona([bundle.still(persona)], None)} if is_instant else None
    model: FrameModel = FaceSwapper(None if renderers else bundle, settings, renderers=renderers)
    model.warm_up()
    return model.open_session()


def _rate_hz(clip: Path) -> float:
    info = describe(clip)
    return info.frames / info.seconds if info.frames and info.seconds else 25.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="training.evaluate", description=__doc__.split("\n\n")[0])
    parser.add_argument("clips", nargs="+", type=Path, metavar="CLIP", help="videos with a face, not used in training")
    parser.add_argument("--bundle", help="directory, .zip or models:/NAME@ALIAS; the shipped default where left out")
    parser.add_argument("--persona", default=[], action="append", metavar="NAME", help="repeatable; all where left out")
    parser.add_argument("--json", action="store_true", help="one JSON object per clip and persona on stdout")
    parser.add_argument("--out", type=Path, help="where to write JSON, plots and side-by-side clips")
    parser.add_argument("--every", type=int, default=5, metavar="N", help="look closely at every n-th frame")
    parser.add_argument("--frames", type=int, default=0, metavar="N", help="take the first n frames of each clip")
    parser.add_argument("--instant", action="store_true", help="paint the personas' references without any network")
    parser.add_argument("--gallery", type=Path, metavar="FOLDER", help="strangers' faces to retrieve the personas from")
    parser.add_argument(
        "--photo", type=Path, default=[], action="append", metavar="FACE", help="a persona of one photo; repeatable"
    )
    parser.add_argument("--self", action="store_true", help="a persona of each clip's own first clear frame")
    parser.add_argument(
        "--spectacles", default=[], action="append", metavar="CLIP", help="its driver wears spectacles; repeatable"
    )
    return parser


def _reports(evaluator: Evaluator, bundle: Bundle, options: argparse.Namespace) -> Iterator[ClipReport]:
    """Measure what the command line asks for: the bundle's personas where it names nobody else."""
    if options.photo:
        yield from evaluator.run_photos(options.photo, OneShot.of(bundle))
    if options.self:
        yield from evaluator.run_self(OneShot.of(bundle))
    if options.persona or not (options.photo or options.self):
        yield from evaluator.run(bundle, options.persona, options.out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status."""
    options = _parser().parse_args(arguments)
    from training.model.log_model import open_bundle
    from training.model.tracking_uri import use_tracking
    from understudy.bundle.bundle import default_bundle

    if str(options.bundle).startswith("models:"):
        use_tracking()

    if options.out and (options.photo or options.self):
        print("Of --photo and --self nothing is written. Leave out --out.", file=sys.stderr)
        return 2
    try:
        bundle = open_bundle(options.bundle or default_bundle())
        for name in options.persona:
            bundle.persona(name)
        evaluator = Evaluator(
            *(options.clips, max(1, options.every), options.frames),
            is_instant=options.instant,
            gallery=options.gallery,
            spectacles=options.spectacles,
        )
        reports: list[ClipReport] = []
        for report in _reports(evaluator, bundle, options):
            if not reports and not options.json:
                print(head())
            reports.append(report)
            print(report.to_json() if options.json else row(report), flush=True)
        if not options.json and len(reports) > 1:
            print("\n".join(mean_rows(reports)))
    except (LiveframeError, MediaError, WeightsError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
