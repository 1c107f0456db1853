"""What a step's code is: the modules it can reach within this repository, the data beside them, and the lock file."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("liveframe", "understudy", "training", "serving", "pipelines")


def code_digest(modules: Sequence[str], root: Path = ROOT) -> str:
    """Return the SHA-256 of modules, of all that they import (at any depth, in functions too), and of uv.lock.

    Data that lies in the modules' folders (a mean mesh, release keys, gates) is part of the code.

    Args:
        modules: dotted names, such as "training.extract".
        root: the folder that the packages lie in.
    """
    digest = hashlib.sha256()
    lock = root / "uv.lock"
    files = reachable(modules, root)
    for path in [*sorted(files | _data_beside(files)), *([lock] if lock.is_file() else [])]:
        digest.update(f"{path.relative_to(root)} ".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _data_beside(files: Iterable[Path]) -> set[Path]:
    """Return the files that packages ship in these modules' folders and that are no code."""
    folders = {path.parent for path in files}
    inside = (path for folder in folders for path in folder.iterdir())
    return {path for path in inside if path.is_file() and path.suffix not in (".py", ".pyc") and path.name[0] != "."}


def reachable(modules: Sequence[str], root: Path = ROOT) -> set[Path]:
    """Return the files of modules and of all that they import from this repository.

    Raises:
        FileNotFoundError: there is no such module.
    """
    found: set[Path] = set()
    waiting = [_file(module, root) or _missing(module) for module in modules]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            names = _imported(ast.parse(path.read_bytes(), str(path)))
            waiting += [file for name in names if (file := _file(name, root))]
    return found


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield what a module may import; `from a import b` may mean the module a.b, or the name b of a."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file(module: str, root: Path) -> Path | None:
    """Return a module's file, or None where it is none of ours."""
    if module.split(".")[0] not in PACKAGES:
        return None
    path = root.joinpath(*module.split("."))
    candidates = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _missing(module: str) -> Path:
    raise FileNotFoundError(f"{module} must be a module of this repository, but has no file.")
