"""Slow check (`make check`): a folder of 100,000 images is found, split and loaded in time and memory that grow no faster."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vae_helpers.data import draw_dog, sample_factors

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys, threading, time
from pathlib import Path
from vae_helpers.data import find_images, load_images, split_dataset
home, source = Path(sys.argv[1]), Path(sys.argv[2])
peak, done = 0, threading.Event()

def watch():  # memory of our own; what is mapped from a file can be dropped at any time
    global peak
    while not done.wait(0.02):
        own = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
        peak = max(peak, int(own.split()[1]) * 1024)

threading.Thread(target=watch).start()
time.sleep(0.1)
before, seconds, started = peak, {}, time.perf_counter()
for step in ("find", "split", "load", "load again"):
    if step == "find":
        n = len(find_images(source))
    elif step == "split":
        split_dataset(source, home / "train", home / "test")
    else:
        n_loaded = sum(len(load_images(home / part, cache_dir=home / "cache")) for part in ("train", "test"))
    seconds[step] = time.perf_counter() - started - sum(seconds.values())
done.set()
assert n == n_loaded == int(sys.argv[3]), (n, n_loaded)
print(json.dumps({"seconds": seconds, "peak": peak, "peak_above_start": peak - before}))
"""


def measured(folder: Path, n: int) -> dict:
    source = folder / "dogs"
    source.mkdir(parents=True)
    draw_dog(sample_factors(1)[0], 56).save(source / "one.jpg")
    picture = (source / "one.jpg").read_bytes()
    (source / "one.jpg").unlink()
    for i in range(n):
        (source / f"dog {i:06d}.jpg").write_bytes(picture + i.to_bytes(4, "big"))
    env = os.environ | {"VAE_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(folder / "home"), str(source), str(n)]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read where Linux tells it")
def test_ten_times_the_files_take_ten_times_the_time_and_hardly_more_memory(tmp_path, capsys):
    few, many = measured(tmp_path / "few", 10_000), measured(tmp_path / "many", 100_000)
    with capsys.disabled():
        for n, found in ((10_000, few), (100_000, many)):
            steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in found["seconds"].items())
            since = f"{found['peak_above_start'] / 1e9:.2f} of it since the start"
            print(f"\n{n:,} files: {steps}; {found['peak'] / 1e9:.2f} GB, {since}")
    assert sum(many["seconds"].values()) < 20 * sum(few["seconds"].values())
    assert many["peak"] < 1.2e9
