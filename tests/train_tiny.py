"""`python train_tiny.py FOLDER EPOCHS`: a short run in a process of its own, for checks that kill it or run it twice."""

import sys

import torch

from vae_helpers.model import VAE
from vae_helpers.train import TrainingSettings, fit

folder, epochs = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
torch.manual_seed(0)
vae = VAE(latent_dim=4, widths=(8, 8, 8), image_size=16)
images = torch.randint(0, 256, (48, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
settings = TrainingSettings(epochs=epochs, batch_size=8)
history = fit(vae, images[:32], images[32:], settings, folder)
print("finished", [record["train_loss"] for record in history])
