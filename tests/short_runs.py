"""Short runs of `fit`, for the tests in training."""

import functools

import torch
from tiny import random_pixels, tiny_vae

from vae_helpers.training import TrainingSettings, fit

TRAIN, VALIDATION = random_pixels(28, seed=1), random_pixels(12, seed=2)
THREE_EPOCHS = TrainingSettings(epochs=3, batch_size=8, ema_decay=0.0)  # four steps each


def trained(seed=0, data=(TRAIN, VALIDATION), settings=THREE_EPOCHS, vae=None, precision="float32", **options):
    """(vae, history) of a run from the weights that `seed` gives."""
    vae = vae or tiny_vae(seed)
    return vae, fit(vae, *data, settings, precision=precision, **options)


@functools.cache
def plain_run():
    """(vae, history) of THREE_EPOCHS without a stop, made once: to compare with, not to be changed."""
    return trained()


def at_training_steps(vae, act):
    """Have `act(step, outputs)` called after each forward pass of training; what it returns, if anything, is the outputs."""
    steps = iter(range(10**6))
    vae.register_forward_hook(lambda module, _, outputs: act(next(steps), outputs) if module.training else None)
    return vae


def same_weights(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def without_times(history):
    return [{k: v for k, v in record.items() if k not in ("seconds", "images_per_second")} for record in history]
