"""Variational autoencoders on dogs: the notebooks' work as commands, on a server too.

`vae-helpers COMMAND --help` tells what a command takes. After an error, the same command with --debug shows where it happened.
"""

import sys
import warnings
from collections.abc import Sequence

import tyro

from ..config import CROPS  # the rooms load what they hold when it is used, so --help is quick
from .making import duplicates, sharpen, split, train, train_prior
from .using import evaluate, export_explorer, reconstruct, sample, walk

MEMORY_FULL = "the memory is full: close other programs, or take a smaller --batch-size, --width or --image-size, or VAE_BF16=1"
COMMANDS = (split, duplicates, train, train_prior, sharpen, sample, reconstruct, evaluate, walk, export_explorer)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; the one place where an exception becomes a sentence. Exits with 1 after it, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # letters that a terminal does not have
    warnings.formatwarning = lambda message, *where: f"warning: {message}\n"
    words = list(sys.argv[1:] if argv is None else argv)
    for i in range(len(words), 0, -1):
        if words[i - 1] == "--crop" and words[i : i + 1] not in [[crop] for crop in CROPS]:
            words.insert(i, "box")
    commands = {command.__name__.replace("_", "-"): command for command in COMMANDS}
    try:
        args = [word for word in words if word != "--debug"]
        tyro.extras.subcommand_cli_from_dict(commands, prog="vae-helpers", description=__doc__, args=args)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if "--debug" in words:
            raise
        raw = isinstance(error, FileNotFoundError) and error.filename  # in the system's own words
        said = f"{error.filename!r}: {error.strerror}: check the path" if raw else " ".join(str(error).split())
        own = isinstance(error, ValueError | OSError | FloatingPointError)
        hint = "" if own else f" ({type(error).__name__}; --debug shows where)"
        full = isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in said)
        sys.exit(f"error: {MEMORY_FULL if full else said + hint}")
