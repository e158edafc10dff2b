"""`python train_tiny.py FOLDER EPOCHS`: a short run in a process of its own, for checks that kill it or run it twice.

EPOCHS may be 2/4: of four, stop after the second, as a kill would between two epochs.
"""

import os
import sys

import torch

from vae_helpers.models import VAE
from vae_helpers.training import TrainingSettings, fit

folder, *last, epochs = sys.argv[1].format(rank=os.environ.get("RANK", 0)), *map(int, sys.argv[2].split("/"))
torch.set_num_threads(1)
torch.manual_seed(int(os.environ.get("RANK", 0)))  # the weights of the first process are those that count
vae = VAE(latent_dim=4, widths=(8, 8, 8), image_size=16)
images = torch.randint(0, 256, (48, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
settings = TrainingSettings(  # 7: no half of it is whole
    epochs=epochs, batch_size=7, calibrated=True, ema_decay=0.9, max_shift=1, free_bits=0.02
)


def on_epoch(vae: VAE, record: dict) -> None:
    if [record["epoch"]] == last:
        os._exit(1)


history = fit(vae, images[:32], images[32:], settings, folder, on_epoch, precision="float32")
processes = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
print(f"finished in {processes} processes\n", end="", flush=True)
