"""What to train: network, width, batch size and epochs for so many photos of one size, in so much memory.

docs/scaling.md shows the measurements behind it.
"""

from typing import Any, NamedTuple

FEW = 1000
"""Photos below which the small network is taken, which has fewer weights to overfit with."""
MEGABYTES = {"vector": 1.8, "residual": 12.5}
"""Memory for each image of a batch of 56 x 56 in training, at width 32 (docs/scaling.md)."""


class Plan(NamedTuple):
    """A choice. network, width: as `vae-helpers train` takes them. settings: some of `TrainingSettings`. reason: in words."""

    network: str
    width: int
    settings: dict[str, Any]
    reason: str


def plan_training(n_images: int, image_size: int, memory_bytes: int, gpu: bool) -> Plan:
    """Choose for `n_images` photos of `image_size` pixels each way, with `memory_bytes` of memory, on a GPU or a CPU.

    A CPU learns from 60,000 images, a GPU from ten times as many, with a network that is wider by half. A photo is seen ten
    times at least, and 200 times at most. A batch takes a quarter of the memory at most.
    """
    network = "vector" if n_images < FEW else "residual"
    width = 48 if gpu and network == "residual" else 32
    megabytes = MEGABYTES[network] * width / 32 * (image_size / 56) ** 2
    batch_size = 128 if gpu else 32
    while batch_size > 4 and batch_size * megabytes * 1e6 > memory_bytes / 4:
        batch_size //= 2
    epochs = min(200, max(10, (600_000 if gpu else 60_000) // n_images))
    settings = {"epochs": epochs, "batch_size": batch_size, "learning_rate": 2e-3 if network == "vector" else 1e-3}
    where = f"{n_images} photos of {image_size} x {image_size}, {memory_bytes / 1e9:.1f} GB on the {'GPU' if gpu else 'CPU'}"
    chosen = f"--network {network} --width {width} " + " ".join(
        f"--{name.replace('_', '-')} {x}" for name, x in settings.items()
    )
    why = f"a small network for fewer than {FEW} photos" if n_images < FEW else f"a large decoder, from {FEW} photos on"
    sizes = f"a batch takes {batch_size * megabytes:.0f} MB; {epochs * n_images} images are seen in all"
    reason = f"{where}: {chosen}\n  ({why}; {sizes})"
    return Plan(network, width, settings, reason)
