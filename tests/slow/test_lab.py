"""Slow check (`make check`): JupyterLab as `make lab` starts it listens on this machine alone and lets nobody in unasked."""

import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def answer(address: str) -> int:
    try:
        return urllib.request.urlopen(address, timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_make_lab_asks_for_its_token_and_listens_on_this_machine_alone(tmp_path):
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "jupyter lab" in line and "echo" not in line]
    command, *options = shlex.split(line.strip())[1:]
    assert command == "lab"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = os.environ | {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    env.pop("JUPYTER_TOKEN", None)
    options = [*options, "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0"]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "lab", *options],
        cwd=ROOT,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}/api/contents"
        deadline = time.monotonic() + 120
        while not answer(address) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert answer(address) == 403
        (told,) = (tmp_path / "runtime").glob("jpserver-*.json")
        token = json.loads(told.read_text())["token"]
        assert len(token) >= 32 and answer(f"{address}?token={token}") == 200
        if not Path("/proc/net/tcp").exists():
            pytest.skip("who listens where is only asked on Linux")
        listening = [row.split()[1] for row in Path("/proc/net/tcp").read_text().splitlines()[1:] if row.split()[3] == "0A"]
        assert [entry for entry in listening if entry.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]  # 127.0.0.1
    finally:
        server.terminate()
        server.wait(timeout=60)
