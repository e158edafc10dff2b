"""The training loop, its batches and checkpoints."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "batches": ["epoch_batches", "make_batch", "near", "random_translate"],
        "loop": ["fit", "validate"],
        "optim": ["learning_rate_factor", "optimizer_step", "update_ema"],
        "resume": ["resume"],
        "settings": ["TrainingSettings"],
    },
)
