"""A bundle as one .zip file: packed alike every time, unpacked without trust."""

import stat
import struct
import zipfile
import zlib
from pathlib import Path

from understudy.bundle.manifest import (
    MANIFEST,
    MAX_BUNDLE_BYTES,
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    BundleError,
    check_member_name,
)

MAX_RATIO = 100
_RATIO_FREE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
# What zipfile raises on damaged input; a NotImplementedError is a RuntimeError, a UnicodeDecodeError a ValueError.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OverflowError, RuntimeError, ValueError, OSError)
_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(directory: Path, out: Path) -> Path:
    """Write a bundle's directory as a .zip; the same files give the same bytes.

    Args:
        directory: holds a manifest.
        out: the .zip to write; replaced atomically where it exists.

    Returns:
        `out`.

    Raises:
        BundleError: the directory has no manifest.
        OSError: the disk is full or not writable; an older `out` stays.
    """
    if not (directory / MANIFEST).is_file():
        raise BundleError(f"A bundle must hold {MANIFEST}, but {directory} has none. Write the manifest first.")
    temporary = out.with_name(f".{out.name}.part")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(p for p in directory.rglob("*") if p.is_file()):
                info = zipfile.ZipInfo(path.relative_to(directory).as_posix(), _EPOCH)
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return out


def unpack(archive_path: Path, directory: Path) -> None:
    """Unpack a bundle's .zip, trusting neither its names nor the sizes that it declares.

    Args:
        archive_path: the .zip.
        directory: an empty directory, filled with the members.

    Raises:
        BundleError: not a .zip, or a member that is unsafe, repeated, encrypted, a link, or too large.
    """
    try:
        with zipfile.ZipFile(archive_path) as archive:
            members = archive.infolist()
            _check_members(members, archive_path)
            for info in members:
                if not info.is_dir():
                    _extract(archive, info, directory)
    except BundleError:
        raise
    except _UNREADABLE as error:
        raise BundleError(f"{archive_path} must be a readable .zip bundle, but: {error}. Fetch it again.") from error


def _check_members(members: list[zipfile.ZipInfo], archive_path: Path) -> None:
    if len(members) > 2 * MAX_FILES:
        raise BundleError(f"{archive_path} must hold at most {2 * MAX_FILES} members, but has {len(members)}. Refused.")
    seen: set[str] = set()
    for info in members:
        # The reader cuts names at a NUL and turns backslashes on Windows: judge what the file says.
        name = info.orig_filename
        check_member_name(name.removesuffix("/"))
        if name.lower() in seen:
            raise BundleError(f"{archive_path} must hold each name once, but repeats {name!r}. Refused.")
        seen.add(name.lower())
        kind = stat.S_IFMT(info.external_attr >> 16)
        is_packed_as_ours = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if info.flag_bits & 0x1 or not is_packed_as_ours or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BundleError(
                f"{archive_path} must hold plain files only, stored or deflated, but {name!r} is a link, encrypted or "
                "packed in another way. Refused."
            )
        limit = MAX_MANIFEST_BYTES if name == MANIFEST else MAX_FILE_BYTES
        is_bomb = info.file_size > max(_RATIO_FREE_BYTES, MAX_RATIO * info.compress_size)
        if info.file_size > limit or is_bomb:
            raise BundleError(
                f"{name!r} of {archive_path} must unpack to at most {limit} bytes and {MAX_RATIO} times its size, "
                f"but declares {info.file_size} from {info.compress_size}. Refused."
            )
    total = sum(info.file_size for info in members)
    if total > MAX_BUNDLE_BYTES:
        raise BundleError(
            f"{archive_path} must unpack to at most {MAX_BUNDLE_BYTES} bytes, but declares {total}. Refused."
        )


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, directory: Path) -> None:
    """Write one member; stops as soon as it gives more bytes than it declared."""
    target = directory / info.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(info) as source, target.open("xb") as file:
        while chunk := source.read(_CHUNK_BYTES):
            written += len(chunk)
            if written > info.file_size:
                break
            file.write(chunk)
    if written != info.file_size:
        raise BundleError(
            f"{info.filename!r} must unpack to the {info.file_size} bytes it declares, but does not. Refused."
        )
