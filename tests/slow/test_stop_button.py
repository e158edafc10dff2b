"""Slow check (`make check`): the stop button of a notebook, pressed in mid-training, leaves a model and a run to go on with."""

import os
import time

import pytest
from jupyter_client.manager import start_new_kernel

from vae_helpers.models import list_checkpoints

pytestmark = pytest.mark.slow

PREPARE = """
import torch
from vae_helpers import VAE, TrainingSettings, fit
torch.manual_seed(0)
pixels = torch.randint(0, 256, (96, 3, 16, 16), dtype=torch.uint8)
settings = TrainingSettings(epochs=40, batch_size=4)

def train():
    torch.manual_seed(0)
    vae = VAE(latent_dim=4, widths=(8, 8, 8), image_size=16)
    return vae, fit(vae, pixels[:80], pixels[80:], settings, "models", precision="float32")

vae = VAE(latent_dim=4, widths=(8, 8, 8), image_size=16)
"""
USE = "print('usable', not vae.training, bool(vae.sample(2).isfinite().all()))"


class Notebook:
    def __init__(self, folder):
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        self.manager, self.client = start_new_kernel(cwd=str(folder), env=env)

    def run(self, code: str, stop_when=None) -> tuple[str, str]:
        """(how the cell ended, what it printed). stop_when: once this is true, the stop button is pressed."""
        printed = []
        asked = self.client.execute(code)
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=0.05)
            except Exception:  # nothing said for a moment
                message = None
            if stop_when and stop_when():
                self.manager.interrupt_kernel()
                stop_when = None
            if message is None or message["parent_header"].get("msg_id") != asked:
                continue
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])
            elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                reply = self.client.get_shell_msg(timeout=60)["content"]
                return reply.get("ename", reply["status"]), "".join(printed)


def test_stopped_by_its_button_a_cell_leaves_a_model_to_use_and_a_run_to_go_on_with(tmp_path):
    notebook = Notebook(tmp_path)
    try:
        assert notebook.run(PREPARE)[0] == "ok"
        started = time.monotonic()
        enough = lambda: len(list_checkpoints(tmp_path / "models")) >= 3 or time.monotonic() > started + 120  # noqa: E731
        how, _ = notebook.run("fit(vae, pixels[:80], pixels[80:], settings, 'models', precision='float32')", enough)
        kept = len(list_checkpoints(tmp_path / "models"))
        assert how == "KeyboardInterrupt" and 3 <= kept < 40
        assert notebook.run(USE) == ("ok", "usable True True\n")
        how, printed = notebook.run("vae, history = train(); print(len(history), 'epochs')")
        assert how == "ok" and f"Going on from vae_model_epoch_{kept}.pth" in printed and "40 epochs" in printed
    finally:
        notebook.client.stop_channels()
        notebook.manager.shutdown_kernel(now=True)
