"""Walks through the latent space: directions and sliders."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "attributes": ["dog_attributes"],
        "directions": ["Directions", "attribute_directions", "dimensions_by_kl", "lerp", "principal_axes", "slerp"],
        "explorer": ["LatentExplorer"],
        "walks": ["png_bytes", "save_filmstrip", "save_gif", "walk"],
    },
)
