"""Variational autoencoders on dogs: the package behind the notebook series."""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "models": ["Decoder", "Encoder", "VAE", "load_checkpoint", "load_pretrained", "load_prior", "vae_loss"],
        "data": ["load_images", "split_dataset"],
        "training": ["TrainingSettings", "fit"],
        "evaluation": ["evaluate"],
        "latent": ["LatentExplorer"],
    },
)
