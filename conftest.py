"""Tests and the notebooks they run work in a temporary place: a reader's data/, outputs/ and models/ stay as they are."""

import atexit
import os
import shutil
import tempfile

_workspace = tempfile.mkdtemp(prefix="vae-test-")
atexit.register(shutil.rmtree, _workspace, ignore_errors=True)
for _name in ("DOGS", "VAE_CROP", "VAE_BF16", "VAE_COMPILE"):  # what a reader has asked for
    os.environ.pop(_name, None)
os.environ |= {"VAE_HOME": _workspace, "VAE_SMOKE": "1"}
