"""The training loop, its batches and checkpoints."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "batches": ["epoch_batches", "make_batch", "near", "random_translate"],
        "loop": ["fit", "learning_rate_factor", "validate"],
        "resume": ["resume"],
        "settings": ["TrainingSettings"],
    },
)
