"""Walks through the latent space: directions and sliders."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "attributes": ["breed_attributes", "dog_attributes", "pixel_attributes", "toy_attributes"],
        "directions": ["Directions", "attribute_directions", "dimensions_by_kl", "lerp", "principal_axes", "slerp", "traverse"],
        "explorer": ["LatentExplorer"],
        "explorer_panel": ["MAX_UPLOAD", "ROLES", "STEPS", "WAYS"],
        "walks": ["enlarged", "filmstrip", "png_bytes", "save_gif", "save_png", "walk"],
    },
)
