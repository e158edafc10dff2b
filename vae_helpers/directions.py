"""Ways through the latent space: between two dogs, and along one dimension."""

import math

import torch
from torch import Tensor


def interpolate(z_from: Tensor, z_to: Tensor, steps: int) -> Tensor:
    """Points on the straight line from one latent to the other, both ends included: (steps, *latent_shape)."""
    t = torch.linspace(0, 1, steps).view(-1, *[1] * z_from.dim()).to(z_from)
    return torch.lerp(z_from[None], z_to[None], t)


def interpolate_on_sphere(z_from: Tensor, z_to: Tensor, steps: int) -> Tensor:
    """Points on the great-circle arc from one latent to the other, both ends included: (steps, *latent_shape).

    The norm goes evenly from one end's to the other's, where a straight line cuts through the inside of the shell on which
    N(0, I) has its mass. Falls back to the line for latents that point the same or the opposite way. Shoemake 1985 (slerp).
    """
    a, b = z_from.flatten().float(), z_to.flatten().float()
    cosine = torch.dot(a, b) / (a.norm() * b.norm())
    angle = torch.arccos(cosine.clamp(-1, 1))
    if not 1e-4 < angle < math.pi - 1e-4:  # also when a latent is all zeros
        return interpolate(z_from, z_to, steps)
    t = torch.linspace(0, 1, steps)[:, None].to(a)
    direction = (torch.sin((1 - t) * angle) * a / a.norm() + torch.sin(t * angle) * b / b.norm()) / torch.sin(angle)
    points = direction * torch.lerp(a.norm(), b.norm(), t)
    return points.view(steps, *z_from.shape).to(z_from)


def walk_dimension(z: Tensor, dimension: int, values: Tensor) -> Tensor:
    """Copies of one latent `z` in which number `dimension` (of the flattened latent) takes each of `values`.

    Returns (len(values), *latent_shape). Raises IndexError for a dimension that `z` does not have.
    """
    if not 0 <= dimension < z.numel():
        raise IndexError(f"dimension {dimension} of a latent with {z.numel()} numbers (0..{z.numel() - 1})")
    walked = z.flatten().repeat(len(values), 1)
    walked[:, dimension] = values.to(walked)
    return walked.view(len(values), *z.shape)
