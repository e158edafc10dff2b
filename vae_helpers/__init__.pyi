from .data import find_head as find_head, load_images as load_images, split_dataset as split_dataset
from .evaluation import evaluate as evaluate
from .latent import LatentExplorer as LatentExplorer
from .models import (
    VAE as VAE,
    Decoder as Decoder,
    Encoder as Encoder,
    load_checkpoint as load_checkpoint,
    load_pretrained as load_pretrained,
    load_prior as load_prior,
    vae_loss as vae_loss,
)
from .training import TrainingSettings as TrainingSettings, fit as fit
