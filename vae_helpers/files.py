"""Files are written whole or not at all, a folder has one writer at a time, and weights have one format.

This module imports nothing of ours; torch is imported when weights are read or written, so that `--help` need not wait for it.
"""

import errno
import json
import os
import shutil
import socket
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from typing import Any

import filelock
from safetensors import SafetensorError

WEIGHTS = Path(__file__).with_name("weights")
"""Where the weights are that come with the package."""
SHIPPED = {path.stem: path for path in sorted(WEIGHTS.glob("*.safetensors"))}
"""Their files by name."""
MAX_BYTES = 2**28
"""Bytes of the largest file that is taken for an image."""


@contextmanager
def atomic_write(path: str | Path, size: int = 0, flush: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, flush it and put it in the place of `path`.

    After an error, or a kill at any moment, `path` is what it was before. Missing parent folders are made. size: bytes it
    will need, where that is known: without room for them nothing is begun. flush: False for files that can be made again, of
    which a power cut may leave some empty. Raises OSError that says which path cannot be written, why, and what to do.
    """
    path = Path(path)
    partial = path.with_name(f".tmp-{os.urandom(6).hex()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if size > free_bytes(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield partial
        if flush:
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise cannot_write(path, error, size) from error
    finally:
        with suppress(OSError):  # in a folder that takes no files
            partial.unlink(missing_ok=True)


def write_file(path: str | Path, content: bytes | str) -> None:
    """Write a file whole or not at all, text as UTF-8. Raises OSError as `atomic_write` does."""
    content = content.encode() if isinstance(content, str) else content
    with atomic_write(path, size=len(content)) as partial:
        partial.write_bytes(content)


def remove_stale_temp_files(folder: str | Path, idle_seconds: float = 0) -> None:
    """Remove, in `folder` and below, what killed processes left of files that they were writing.

    Where others may be writing (no `lock_folder`): only what nobody has written to for `idle_seconds`.
    """
    for path in list(Path(folder).rglob(".tmp-*.partial")):
        with suppress(OSError):  # another process has just finished it, or the folder cannot be written
            if time.time() - path.stat().st_mtime >= idle_seconds:
                path.unlink()


def cannot_write(path: Path, error: OSError, size: int = 0) -> OSError:
    """The error as a sentence: which path, why (on a full disk: that it needs `size` bytes, 0 if unknown), what to do."""
    needed = f"it needs {size / 1e6:,.1f} MB, " if size else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    room = f": {needed}{free_bytes(path) / 1e6:,.1f} MB are free there. Make room, or choose" if full else ". Choose"
    another = "another folder (VAE_HOME is the one for everything written)"
    return OSError(f"cannot write {str(path)!r}: {error.strerror or error}{room} {another}")


def free_bytes(path: str | Path) -> int:
    """Bytes free on the disk that `path` is on, or will be."""
    path = Path(path).absolute()
    return shutil.disk_usage(next((folder for folder in path.parents if os.access(folder, os.F_OK)), path.anchor)).free


def read_file(path: str | Path) -> bytes:
    """What is in a file. Raises OSError, or ValueError for what is not a file (a pipe would never end) or above MAX_BYTES."""
    size = Path(path).stat().st_size
    if not Path(path).is_file():
        raise ValueError(f"{str(path)!r}: not a file")
    if size > MAX_BYTES:
        raise ValueError(f"{str(path)!r}: {size / 1e6:,.0f} MB, more than the {MAX_BYTES / 1e6:,.0f} allowed")
    return Path(path).read_bytes()


def reason(error: Exception, path: Path) -> str:
    """Why, in a few words, without the path."""
    return getattr(error, "strerror", None) or str(error).removeprefix(f"{str(path)!r}: ") or type(error).__name__


def is_safe_path(name: str) -> bool:
    """Whether a relative name, on any system, names something inside the folder that it is relative to."""
    path = PureWindowsPath(name)  # knows both slashes, and drives
    return bool(path.parts) and not path.drive and not path.root and ".." not in path.parts


@contextmanager
def lock_folder(folder: str | Path, what: str) -> Iterator[None]:
    """Be the only process that writes in `folder` while the block runs.

    what: what the folder holds, for the message ("the checkpoints"). The lock is a file beside the folder, which the system
    frees when the process ends in any way. Raises BlockingIOError, and changes nothing, when another holds it: the message
    says which process, since when, and what to do. Raises OSError where nothing can be written.
    """
    folder = Path(folder).resolve()
    note, lock = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("holder", "lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(lock).acquire(timeout=0)
    except filelock.Timeout:
        holder = note.read_text(encoding="utf-8") if note.is_file() else "another process"
        raise BlockingIOError(f"{what} in {str(folder)!r} are being written by {holder}: wait for it, or stop it") from None
    except OSError as error:
        raise cannot_write(folder, error) from error
    with held:
        process = f"process {os.getpid()} on {socket.gethostname()} ({' '.join(sys.argv)[:200]})"
        note.write_text(f"{process} since {time.strftime('%Y-%m-%d %H:%M:%S')}", encoding="utf-8")
        yield


def save_weights(path: str | Path, state: dict[str, Any], metadata: dict[str, Any], dtype: Any = None) -> None:
    """Write tensors and what belongs to them to one safetensors file, whole or not at all.

    state: name -> tensor. metadata: name -> numbers, text, lists, dictionaries or None. dtype: what every tensor is stored as
    (torch.float16 takes half the room); as it is when left out. Raises OSError that says why the file cannot be written.
    """
    from safetensors.torch import save

    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in state.items()}
    checksum = {"crc32": zlib.crc32(_split(save(state))[1])}  # the format has none of its own
    write_file(path, save(state, {name: json.dumps(value) for name, value in (metadata | checksum).items()}))


def load_weights(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors and the metadata that `save_weights` wrote; of a file of another program too, with its metadata as text.

    Raises FileNotFoundError, or ValueError for a file that is damaged or no safetensors file.
    """
    from safetensors.torch import load

    content = Path(path).read_bytes()
    try:
        state, (header, numbers) = load(content), _split(content)
        metadata = json.loads(header).get("__metadata__", {})
        for name, text in metadata.items():
            with suppress(ValueError):  # another program's text
                metadata[name] = json.loads(text)
        if metadata.pop("crc32", None) not in (None, zlib.crc32(numbers)):
            raise ValueError("its checksum is wrong")
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is damaged or no safetensors file, and was not loaded: {error}") from None
    return state, metadata


def _split(content: bytes) -> tuple[bytes, bytes]:
    """Header and numbers of a safetensors file."""
    end = 8 + int.from_bytes(content[:8], "little")
    return content[8:end], content[end:]
