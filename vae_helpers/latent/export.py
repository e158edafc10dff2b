"""What a web page needs to walk through a model's latent space: its networks as ONNX files, and the numbers as JSON."""

import copy
import json
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.utils import parametrize

from ..data.heads import CELLS, HEAD_UP, INPUT, load_head_finder
from ..files import SHIPPED, WEIGHTS, atomic_write, write_file
from ..models.inference import decode_latents
from ..models.priors import FullGaussian, GaussianMixture, Prior
from ..models.vae import BaseVAE
from .attributes import head_measures, pixel_statistics
from .directions import attribute_directions, principal_axes


def export_explorer(vae: BaseVAE, prior: Prior, name: str, out: str | Path) -> None:
    """Write decoder.onnx, encoder.onnx, head_finder.onnx and directions.json into the folder `out`, the last one last.

    name: of the model. The ONNX files hold weights in half precision and compute in float32: z (1, *latent_shape), and label
    (1,) where there are breeds, -> image (1, 3, S, S) in [-1, 1]; image -> mu, logvar; image -> map, as `HeadFinder`.
    directions.json: sizes, crop, breeds, and terms of use if the weights came with the package; the prior as Gaussians with one
    covariance, by its root; and the named directions and principal axes of 1,536 draws, as in chapter 05, where six of the
    eight measures of a head are of use. Of other pictures, only statistics that the latent tells at all (held-out R² above 0).
    Needs onnx and onnxscript, the extra `export`. Raises OSError where nothing can be written.
    """
    z = prior.sample(1536, torch.Generator().manual_seed(0))
    measures = (head_measures if vae.crop == "head" else pixel_statistics)(decode_latents(vae, z, batch_size=32))
    named = attribute_directions(z, measures)
    named = named.take([k for k in map(named.names.index, list(measures)[:6]) if named.scores[k] > 0])
    prior = prior if isinstance(prior, GaussianMixture) else FullGaussian(vae.latent_shape).fit(z)
    image, finder_sees = (torch.zeros(1, 3, size, size) for size in (vae.image_size, INPUT))
    label = {"label": torch.zeros(1, dtype=torch.long)} if vae.breeds else {}
    _write_onnx(Path(out, "decoder.onnx"), vae.decoder, {"z": z[:1]} | label, ["image"])
    _write_onnx(Path(out, "encoder.onnx"), vae.encoder, {"image": image}, ["mu", "logvar"])
    _write_onnx(Path(out, "head_finder.onnx"), load_head_finder(), {"image": finder_sees}, ["map"])
    terms = (WEIGHTS / "README.md").read_text("utf-8").partition("mean for the weights\n\n")[2].partition(" A VAE")[0]
    numbers = {
        "model": name,
        "terms": terms.replace("*", "").replace("`", "") if name in SHIPPED else "",
        "image_size": vae.image_size,
        "latent_shape": vae.latent_shape,
        "crop": vae.crop,
        "finder": {"input": INPUT, "cells": CELLS, "up": HEAD_UP},
        "breeds": vae.breeds,
        "prior": {"weights": prior.weights, "means": prior.means, "root": prior.scale_tril},
        "directions": {"named": vars(named), "principal axes": vars(principal_axes(z, 8))},
    }
    text = json.dumps(numbers, default=lambda tensor: tensor.cpu().double().numpy().round(5).tolist())
    write_file(Path(out, "directions.json"), text)


class _ToFloat(nn.Module):
    def forward(self, stored: Tensor) -> Tensor:
        return stored.float()


def _write_onnx(path: Path, network: nn.Module, args: dict[str, Tensor], answers: list[str]) -> None:
    network = copy.deepcopy(network).cpu().eval()  # the finder is kept in memory
    for part in list(network.modules()):
        for name, weight in list(part.named_parameters(recurse=False)):
            parametrize.register_parametrization(part, name, _ToFloat(), unsafe=True)
            part.parametrizations[name].original.data = weight.data.half()
    model = torch.onnx.export(network, (*args.values(),), input_names=[*args], output_names=answers, dynamo=True, verbose=False)
    with atomic_write(path) as partial:
        model.save(partial)
