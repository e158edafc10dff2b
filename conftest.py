"""Tests and the notebooks they run work in a temporary place: a reader's data/, outputs/ and models/ stay as they are."""

import atexit
import os
import shutil
import tempfile

_workspace = tempfile.mkdtemp(prefix="vae-test-")
atexit.register(shutil.rmtree, _workspace, ignore_errors=True)
os.environ["VAE_HOME"] = _workspace
os.environ["VAE_SMOKE"] = "1"
os.environ.pop("DOGS", None)
