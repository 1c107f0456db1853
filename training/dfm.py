"""A persona to DeepFaceLive's format, and back.

    uv run python -m training.dfm bundles/default --persona ada --out ada.dfm
    uv run python -m training.dfm their.dfm --persona kim --photo kim.jpg --consent consent.json --out bundles/kim

Out: one ONNX graph that DeepFaceLive and other players of `.dfm` load. Set their face coverage to 1.7 and
Y offset to 0.08, so that they frame faces as ours does. Whoever gets the file can use the face without any of
our checks; so the persona's consent record must cover live use, and its digest goes into the file.
In: a bundle like any other, with the persona's photo as its look and a consent record. Exit status 2: refused.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from liveframe.errors import LiveframeError
from training.still import write_still
from understudy.bundle.bundle import Bundle, BundleError, default_bundle
from understudy.bundle.dfm import COVERAGE, WHOLE_FACE_COVERAGE, Y_OFFSET, export_dfm, read_dfm
from understudy.bundle.manifest import ENCODER, write_manifest
from understudy.consent.persona import Persona
from understudy.consent.trust_store import Trust, TrustStore, trust_folder
from understudy.vision.reference import ReferenceFace

_THUMBNAIL_PX = 192


def export_persona(bundle: Bundle, name: str, out: Path, trust: Trust) -> str:
    """Write a persona as a `.dfm` file; whole or not at all.

    Args:
        bundle: verified.
        name: the persona.
        out: the file to write.
        trust: whose consent records count.

    Returns:
        The digest of the consent record that covers it.

    Raises:
        BundleError: no such persona, or its graphs cannot be joined.
        ConsentError: its record does not cover live use.
    """
    info = bundle.persona(name)
    record = Persona.of(info).check("live", trust)
    content = export_dfm(bundle, name, {"consent": record, "framing": f"coverage {COVERAGE}, Y offset {Y_OFFSET}"})
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    part.write_bytes(content)
    part.replace(out)
    return record


def import_persona(
    source: Path, persona: Persona, look: ReferenceFace, consent: Path, out: Path, coverage: float
) -> Bundle:
    """Write a `.dfm` as a bundle of one persona.

    Args:
        source: the `.dfm` file.
        persona: its name, title, still (as `write_still` wrote it) and record.
        look: the still.
        consent: the record's file.
        out: the bundle's folder; must not exist.
        coverage: see `understudy.bundle.dfm.read_dfm`.

    Raises:
        BundleError: the file is refused, or is larger than a bundle may be.
    """
    graphs = read_dfm(source, coverage)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        root = Path(temporary) / "bundle"
        folder = root / persona.name
        folder.mkdir(parents=True)
        (root / ENCODER).write_bytes(graphs.encoder)
        (folder / "decoder.onnx").write_bytes(graphs.decoder)
        shutil.copyfile(persona.still, folder / "still.png")
        shutil.copyfile(consent, folder / "consent.json")
        np.save(folder / "mesh.npy", look.mesh)
        small = cv2.resize(look.image, (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / "thumbnail.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 88])
        write_manifest(
            root,
            name=persona.name,
            version=source.name[:100],
            personas={persona.name: persona.title},
            input_shape=graphs.spec.input_shape,
            output_shape=graphs.spec.output_shape,
            licence=f"that of {source.name[:100]}",
            training={"recipe": "dfm", "source": source.name},
        )
        Bundle.load(root)
        root.rename(out)
    return Bundle.load(out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="training.dfm", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "source", nargs="?", default=str(default_bundle()), help="a bundle (folder, .zip, models:/NAME@ALIAS) or a .dfm"
    )
    parser.add_argument("--persona", required=True, metavar="NAME", help="which, or how the new one is called")
    parser.add_argument("--out", type=Path, required=True, help="the .dfm file, or the bundle's folder")
    parser.add_argument("--title", help="what people read; the name where left out")
    parser.add_argument("--photo", type=Path, help="in: a clear photo of the persona")
    parser.add_argument("--consent", type=Path, help="in: its consent record")
    parser.add_argument(
        "--coverage", type=float, default=WHOLE_FACE_COVERAGE, help="in: how widely its faces are framed (%(default)s)"
    )
    return parser


def _export(options: argparse.Namespace, trust: Trust) -> str:
    from training.model.log_model import open_bundle

    bundle = open_bundle(options.source)
    record = export_persona(bundle, options.persona, options.out, trust)
    size = options.out.stat().st_size / 1e6
    return (
        f"{options.out}: {size:.1f} MB, covered by consent record {record[:12]}. "
        f"In the player, set face coverage {COVERAGE} and Y offset {Y_OFFSET}."
    )


def _import(options: argparse.Namespace, trust: Trust) -> str:
    if options.photo is None:
        raise BundleError("A persona needs a look, but no --photo was given. Give a clear photo of its face.")
    if options.out.exists():
        raise BundleError(f"{options.out} must not exist yet, but does. Choose another --out, or remove it.")
    still = options.out.with_name(f"{options.persona}-still.png")
    look = write_still(options.photo, still)
    if options.consent is None:
        raise BundleError(
            f"A persona needs a consent record that lists its still, {still}, but no --consent was given. Sign one: "
            f"python -m understudy.consent make --persona {options.persona} --files {still} {options.photo} --help"
        )
    persona = Persona.load(options.persona, options.title or options.persona.title(), still, options.consent)
    persona.check("live", trust)
    bundle = import_persona(Path(options.source), persona, look, options.consent, options.out, options.coverage)
    still.unlink()
    return f"{options.out}: persona {options.persona}, faces of {bundle.manifest.input_shape[0]} px."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status: 2 when it is refused."""
    options = _parser().parse_args(arguments)
    try:
        trust = TrustStore(trust_folder(os.environ)).read()
        print(_import(options, trust) if options.source.lower().endswith(".dfm") else _export(options, trust))
    except LiveframeError as error:
        print(f"training.dfm: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"training.dfm: {options.out} could not be written: {error}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
