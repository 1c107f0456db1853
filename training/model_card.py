"""Write a bundle's model card: data, recipe, figures on held-out clips, limits, licence.

    uv run python -m training.model_card bundles/default CLIP... [--every 5]

Without clips, the figures and sheets that are there stay, and the text is written anew.

The clips drive the personas and are measured (training.evaluate). The card's sheets show what the network
paints and nothing of the driver: outside the mask they are grey, so that no real person's picture ships.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.evaluate import Evaluator
from understudy.bundle.bundle import Bundle, BundleError, write_manifest
from understudy.draw.contact_sheet import labelled
from understudy.media.clip import read_frames
from understudy.media.guard import MediaError
from understudy.swap.blend import Blender
from understudy.swap.driver import DriverBook
from understudy.swap.renderer import open_renderer
from understudy.swap.settings import SwapSettings
from understudy.vision.detect import FaceDetector
from understudy.vision.iris import iris_model
from understudy.vision.mesh import FaceMesh, mesh_box

_CELL_PX, _GREY = 160, 128
_COMMANDS = (
    "# FACES: the machine-made faces; CLIPS: cap12_edit cap13_edit2 d0 d6 d10 d12 d18 d20 franck WolfgangLanger_Pexels",
    "uv run python -m training.data.mosaic --faces FACES/machine_faces_large --out work/personas",
    "uv run python -m training.data.triplets --drivers FACES CLIPS --out work/triplets --count 16000",
    "uv run python -m training.train --config training/configs/oneshot.toml",
    "uv run python -m training.one_shot_bundle --config training/configs/oneshot.toml --personas work/personas \\",
    "    --out bundles/default",
    "# d3 and d14: 120 frames of each are measured (ffmpeg -i d3.mp4 -frames:v 120 -crf 8 d3_first_120.mp4)",
    "uv run python -m training.model_card bundles/default d3_first_120.mp4 d14_first_120.mp4 single_face.mp4 \\",
    "    --every 10",
)
_FIGURES = (
    *("coverage", "retrieval_rank1", "nearer_persona_dlib", "identity_to_persona", "identity_to_driver"),
    *("pose_deg", "mouth_pct", "eyes_pct", "jitter_ratio", "flicker_ratio", "seam_delta_e", "outside_psnr_db"),
)


def write_card(folder: Path, clips: Sequence[Path], every: int = 5) -> Path:
    """Measure a bundle on clips, and write its card and sheets into it.

    Args:
        folder: the bundle; its manifest is made anew, with the figures in it.
        clips: held-out videos with a face; without any, the figures and sheets stay as they are.
        every: look closely at every n-th frame.

    Returns:
        The card's path.

    Raises:
        BundleError: the bundle is damaged, or has no figures yet and no clips were given.
        MediaError: a clip is missing or broken.
    """
    bundle = Bundle.load(folder)
    facts = dict(bundle.manifest.training)
    if not clips:
        if "evaluation" not in facts:
            raise BundleError(f"{folder} has no figures yet. Name clips to measure it on.")
        return _write_text(folder, bundle, facts, sorted(sheet.stem for sheet in (folder / "sheets").glob("*.jpg")))
    reports = [report.figures() for report in Evaluator(clips, every).run(bundle, [p.name for p in bundle.personas])]
    sheets = folder / "sheets"
    sheets.mkdir(exist_ok=True)
    for clip in clips:
        cv2.imwrite(str(sheets / f"{clip.stem}.jpg"), held_out_sheet(bundle, clip), [cv2.IMWRITE_JPEG_QUALITY, 82])
    return _write_text(folder, bundle, {**facts, "evaluation": reports}, [c.stem for c in clips])


def _write_text(folder: Path, bundle: Bundle, training: dict[str, Any], sheets: Sequence[str]) -> Path:
    card = folder / "model_card.md"
    card.write_text("\n".join(card_lines(bundle, training, sheets)) + "\n")
    manifest = bundle.manifest
    write_manifest(
        folder,
        name=manifest.name,
        version=manifest.version,
        personas={persona.name: persona.title for persona in bundle.personas},
        input_shape=manifest.input_shape,
        output_shape=manifest.output_shape,
        licence=manifest.licence,
        training=training,
        created=manifest.created,
        factory=manifest.factory,
    )
    Bundle.load(folder)
    return card


def held_out_sheet(bundle: Bundle, clip: Path, columns: int = 8) -> NDArray[np.uint8]:
    """Return what each persona (row) paints on frames of a clip (columns): uint8 [H, W, 3], BGR, on grey, labelled.

    Only what the persona hides is shown: no driver is.
    """
    detector, mesh = FaceDetector(), FaceMesh()
    renderers = [open_renderer(bundle, persona.name) for persona in bundle.personas]
    settings, blender = SwapSettings(), Blender()
    cells: list[NDArray[np.uint8]] = []
    for frame in _spread(clip, columns):
        faces = detector.detect(frame)
        if not faces:
            continue
        face = mesh.refine(frame, faces[0])
        left, top, right, bottom = (int(value) for value in mesh_box(face.mesh)) if face.mesh is not None else (0,) * 4
        column: list[NDArray[np.uint8]] = []
        for renderer in renderers:
            grey = np.full_like(frame, _GREY)
            for painted in renderer.begin(frame, [face], settings, DriverBook(iris_model()))():
                painted.lay(grey, replace(settings, shape=0.0), blender)
            part = grey[max(top, 0) : bottom, max(left, 0) : right]
            column.append(np.asarray(cv2.resize(part, (_CELL_PX, _CELL_PX), interpolation=cv2.INTER_AREA)))
        cells.append(np.vstack(column))
    if not cells:
        raise MediaError(f"{clip} must show a face in some frame, but none was found. Choose another clip.")
    return labelled(np.hstack(cells))


def _spread(clip: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    total = sum(1 for _ in read_frames(clip))
    wanted = set(np.linspace(0, total - 1, count + 2).astype(int)[1:-1].tolist())
    yield from (frame.image for frame in read_frames(clip) if frame.index in wanted)


def card_lines(bundle: Bundle, training: dict[str, Any], sheets: Sequence[str]) -> Iterator[str]:
    """Yield the card's lines, Markdown."""
    manifest = bundle.manifest
    yield f"# Model card: {manifest.name}, version {manifest.version}\n"
    yield "Repaints a face in a video frame as a persona who does not exist. For consenting people and artists;"
    yield "not for deceiving anybody about who is speaking: output is labelled and watermarked by default.\n"
    yield "## What it is\n"
    yield from _one_shot_lines(bundle) if manifest.is_one_shot else _autoencoder_lines(bundle)
    yield f"- Recipe: {training.get('recipe')}; {training.get('iterations')} iterations of {training.get('batch')},"
    yield f"  {training.get('seconds')} s of wall clock; network {training.get('network')}."
    yield f"- Last validation: {training.get('validation')}.\n"
    yield "\n## Figures on held-out clips\n"
    yield "Measured by `training.evaluate`; keys are explained in `training/evaluation/clip_report.py`.\n"
    yield f"| clip | persona | {' | '.join(_FIGURES)} |"
    yield f"|---|---|{'---|' * len(_FIGURES)}"
    for report in training["evaluation"]:
        values = " | ".join(_cell(report[key]) for key in _FIGURES)
        yield f"| {report['clip']} | {report['persona']} | {values} |"
    yield "\nWhat each persona (row) paints on frames of each clip. The drivers, real people, are not shown:\n"
    yield from (f"![{name}](sheets/{name}.jpg)\n" for name in sheets)
    yield "## Limits\n"
    yield "- Profile views beyond about 50 degrees, tongues and hard coloured light are weak spots."
    yield "- Spectacles that are kept make anybody easier to recognise; so do hair, build and teeth, the driver's own."
    yield "- Bright, flat light leaves a photo part of its own contrast; in the dark, fair skin keeps too much of it."
    yield "- The machine-made faces are unevenly spread over apparent groups; drivers of clips were not balanced.\n"
    yield "## Made by\n"
    yield "```bash"
    yield from (f"{line}" for line in _COMMANDS)
    yield "```\n"
    yield f"## Licence\n\n{manifest.licence}"


def _one_shot_lines(bundle: Bundle) -> Iterator[str]:
    yield "- A persona is a photograph and its mesh. Each frame it is warped onto the driver's mesh, with the driver's"
    yield "  gaze and light, on a face bent to the persona's shape (docs/model.md). One mixing network for all,"
    yield "  int8 ONNX, says how opaque the photograph is; it paints nothing."
    yield f"- Personas: {', '.join(persona.title for persona in bundle.personas)}. Each is a mosaic: parts of four or"
    yield "  more machine-made adult faces, joined by multi-band blending (Burt & Adelson 1983), less than 0.6 like any"
    yield "  of them (SFace): nobody's face. Sources and similarities: each `consent.json`; licence: `NOTICE.md`."


def _autoencoder_lines(bundle: Bundle) -> Iterator[str]:
    size_in, size_out = bundle.manifest.input_shape[0], bundle.manifest.output_shape[0]
    yield f"- Input: one aligned face, {size_in} px BGR; output: {size_out} px BGR and"
    yield "  mask. One shared encoder, one decoder per persona, int8 ONNX (first and last layers float32)."
    yield f"- Personas: {', '.join(persona.title for persona in bundle.personas)}. Whose faces: each `consent.json`."


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float | int) else "-"


def main() -> None:
    """Write a card from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("clips", type=Path, nargs="*", help="held-out videos with a face")
    parser.add_argument("--every", type=int, default=5, help="look closely at every n-th frame")
    args = parser.parse_args()
    try:
        print(write_card(args.bundle, args.clips, args.every))
    except (BundleError, MediaError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
