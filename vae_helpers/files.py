"""Files are written whole or not at all."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, flush it and put it in the place of `path`.

    After an error, or a kill at any moment, `path` is what it was before. Missing parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = hashlib.sha256(path.name.encode(errors="surrogateescape")).hexdigest()[:12]  # the name may be as long as names go
    partial = path.with_name(f".{mark}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
