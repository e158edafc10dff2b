"""How the weights `dogs` are made: whole dogs by breed at 56 x 56, by the recipe of `heads`.

    pip install -e ".[sharpen]"
    python recipes/dogs.py ../shared/dogs RUN [--images 2000000] [--minutes 10] [--start WEIGHTS]

DOGS holds `stanford-64.tar`: dogs cut to their boxes, in folders named after their breeds. The decoder knows the breed, by a
vector that is added to what the latent becomes before it enters the blocks; one picture in ten is learned from without its
breed. The discriminators on features judge whether a picture is a photo of that breed (Miyato & Koyama 2018); the prior is
one Gaussian a breed, with one covariance. Files and phases are those of heads.py, but for the last phase: nothing grows.

The KL weighs more than for heads: whole dogs vary more, and a draw of a latent that says less is easier to make a dog of. The
discriminators look at pictures four times as wide, since legs and faces of a whole dog are small.
"""

import io
import tarfile
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from heads import DEFAULTS, Pictures, arguments_of, is_held_out, train
from PIL import Image
from torch import Tensor

SIZE = 56
CHOICES = {"images": 2_000_000, "warm": 100_000, "grow": 10**9, "batch": 128, "look": 224, "width": 192}
CHOICES |= {"pixels_weight": 5.0, "features_weight": 0.5, "fooled_weight": 1.0, "kl_weight": 0.006}
WIDTHS = (320, 160, 80, 48)  # of the decoder: whole dogs vary more than heads


def read_dogs(dogs: Path) -> tuple[Tensor, list[str], list[str]]:
    """Every dog: uint8 (N, 3, 56, 56), its name, and its breed as "Golden retriever", say."""
    images, names, breeds = [], [], []
    with tarfile.open(dogs / "stanford-64.tar") as tar:
        for member in sorted((m for m in tar if m.isfile()), key=lambda m: m.name):
            image = Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGB")
            images.append(np.asarray(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)))
            names.append(member.name.removeprefix("./"))
            breeds.append(names[-1].split("/")[0].split("-", 1)[1].replace("_", " ").capitalize())
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), names, breeds


def main(arguments: list[str] | None = None, network: nn.Module | None = None) -> None:
    options = arguments_of(__doc__, arguments, **DEFAULTS | CHOICES)
    dogs, names, breed_of = read_dogs(options.dogs)
    breeds = sorted(set(breed_of))
    labels = torch.tensor([1 + breeds.index(breed) for breed in breed_of])
    held_out = torch.tensor([is_held_out(name) for name in names])
    pictures = Pictures(dogs[~held_out].contiguous(), labels[~held_out])
    train(pictures, dogs[held_out], options, network, "box", breeds, latent_dim=256, widths=WIDTHS)


if __name__ == "__main__":
    main()
