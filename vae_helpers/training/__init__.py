"""The training loop, its batches and checkpoints, and the training of a prior."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
