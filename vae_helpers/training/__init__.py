"""The training loop, its batches and checkpoints, and the training of a prior."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "batches": ["epoch_batches", "make_batch", "random_translate", "to_device_if_fits"],
        "flow_fitting": ["fit_flow"],
        "loop": ["fit", "make_accelerator"],
        "optim": ["learning_rate_factor", "optimizer_step", "update_ema"],
        "settings": ["TrainingSettings"],
    },
)
