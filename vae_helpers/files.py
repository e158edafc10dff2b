"""Files are written whole or not at all, and a folder that cannot take one is named."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath

import psutil
from safetensors import SafetensorError

WEIGHTS = Path(__file__).with_name("weights")
"""Where the weights are that come with the package."""
MAX_BYTES = 2**28
"""Bytes of the largest file that is taken for an image."""


def _this_machine() -> str:
    """A mark of this machine, or of this container: where a process number means what it means here."""
    numbers = Path("/proc/self/ns/pid")
    place = f"{socket.gethostname()} {numbers.stat().st_ino if numbers.exists() else ''}"
    return hashlib.sha256(place.encode()).hexdigest()[:6]


_HERE = _this_machine()
_PARTIAL = re.compile(rf"\.\w+\.{_HERE}-(\d{{1,9}})(\.\w+)?\.partial")  # what `partial_mark` begins


def partial_mark(name: str) -> str:
    """How the name of an unfinished file begins, which `remove_stale_temp_files` knows again once this process is gone."""
    mark = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:12]  # the name may be as long as names go
    return f".{mark}.{_HERE}-{os.getpid()}"


@contextmanager
def atomic_write(path: str | Path, size: int = 0, flush: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, flush it and put it in the place of `path`.

    After an error, or a kill at any moment, `path` is what it was before. Missing parent folders are made. size: bytes it
    will need, where that is known: without room for them nothing is begun. flush: False where the caller flushes all
    files of a folder at once. Raises OSError that says which path cannot be written, why, and what to do.
    """
    path = Path(path)
    partial = path.with_name(f"{partial_mark(path.name)}.partial")
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
    except SafetensorError as error:  # which tells the system's number in words
        number = re.search(r"os error (\d+)", str(error))
        raise cannot_write(path, OSError(int(number[1]) if number else errno.EIO, str(error)), size) from error
    finally:
        with contextlib.suppress(OSError):  # not there after success, nor in a folder that takes no files
            partial.unlink()


def read_file(path: str | Path) -> bytes:
    """What is in a file. Raises OSError, or ValueError for what is not a file (a pipe would never end) or above MAX_BYTES."""
    about = Path(path).stat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError(f"{str(path)!r}: not a file")
    if about.st_size > MAX_BYTES:
        raise ValueError(f"{str(path)!r}: {about.st_size / 1e6:,.0f} MB, more than the {MAX_BYTES / 1e6:,.0f} allowed")
    return Path(path).read_bytes()


def reason(error: Exception, path: Path) -> str:
    """Why, in a few words, without the path."""
    told = (isinstance(error, OSError) and error.strerror) or str(error).removeprefix(f"{str(path)!r}: ")
    return told or type(error).__name__


def free_bytes(path: str | Path) -> int:
    """Bytes free on the disk that `path` is on, or will be."""
    path = Path(path).absolute()
    return shutil.disk_usage(next((folder for folder in path.parents if folder.exists()), path.anchor)).free


def cannot_write(path: Path, error: OSError, size: int = 0) -> OSError:
    """The same error as a sentence: which path, why, how much was needed (`size` bytes, 0 if unknown), and what to do."""
    told = f"cannot write {str(path)!r}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        needed = f"it needs {size / 1e6:,.1f} MB, " if size else ""
        told += f": {needed}{free_bytes(path) / 1e6:,.1f} MB are free there. Make room, or set VAE_HOME to a folder elsewhere"
    else:
        told += ". Choose another folder (VAE_HOME is the one for everything written)"
    same = type(OSError(error.errno, ""))(told)  # of the kind that goes with the number, which is not told
    same.errno = error.errno
    return same


def remove_stale_temp_files(folder: str | Path) -> None:
    """Remove, in `folder` and below, what killed processes of this machine left of files that they were writing."""
    for here, below, names in os.walk(folder):
        for name in (*names, *below):
            found = _PARTIAL.fullmatch(name)
            if found and not psutil.pid_exists(int(found[1])):
                shutil.rmtree(Path(here, name), ignore_errors=True)
                with contextlib.suppress(OSError):
                    Path(here, name).unlink()


def is_safe_path(name: str) -> bool:
    """Whether a relative name, on any system, names something inside the folder that it is relative to."""
    path = PureWindowsPath(name)  # knows both slashes, and drives
    return bool(path.parts) and not path.drive and not path.root and ".." not in path.parts
