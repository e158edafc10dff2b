import math

import pytest
import torch

from vae_helpers.directions import interpolate, interpolate_on_sphere, walk_dimension


def two_latents(shape=(8,)):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


@pytest.mark.parametrize("shape", [(8,), (4, 7, 7)])
@pytest.mark.parametrize("way", [interpolate, interpolate_on_sphere])
def test_a_way_begins_and_ends_at_its_ends(way, shape):
    a, b = two_latents(shape)
    points = way(a, b, 5)
    assert points.shape == (5, *shape)
    torch.testing.assert_close(points[0], a)
    torch.testing.assert_close(points[-1], b)


def test_a_straight_way_has_equal_steps():
    a, b = two_latents()
    steps = interpolate(a, b, 5).diff(dim=0)
    torch.testing.assert_close(steps, ((b - a) / 4).expand(4, -1))


def test_an_arc_between_equal_norms_keeps_the_norm_and_has_equal_steps():
    a, b = two_latents()
    points = interpolate_on_sphere(a, b * a.norm() / b.norm(), 9)
    torch.testing.assert_close(points.norm(dim=1), a.norm().expand(9))
    lengths = points.diff(dim=0).norm(dim=1)
    torch.testing.assert_close(lengths, lengths[0].expand(8))


@pytest.mark.parametrize("degrees", [30, 90, 150, 175])
def test_an_arc_keeps_the_norm_between_those_of_its_ends(degrees):
    angle = math.radians(degrees)
    norms = interpolate_on_sphere(torch.tensor([1.0, 0]), 2 * torch.tensor([math.cos(angle), math.sin(angle)]), 21).norm(dim=1)
    assert norms.min() >= 1 - 1e-5 and norms.max() <= 2 + 1e-5


@pytest.mark.parametrize("factor", [-2.0, 0.0, 1.0, 3.0])
def test_an_arc_without_a_plane_falls_back_to_the_line(factor):
    a, _ = two_latents()
    torch.testing.assert_close(interpolate_on_sphere(a, factor * a, 5), interpolate(a, factor * a, 5))


@pytest.mark.parametrize(("shape", "dimension"), [((8,), 3), ((2, 3, 3), 17)])
def test_a_walk_changes_only_its_dimension(shape, dimension):
    z, _ = two_latents(shape)
    before, values = z.clone(), torch.linspace(-3, 3, 7)
    walked = walk_dimension(z, dimension, values)
    assert walked.shape == (7, *shape)
    assert torch.equal(walked.flatten(1)[:, dimension], values)
    others = torch.arange(z.numel()) != dimension
    assert torch.equal(walked.flatten(1)[:, others], z.flatten()[others].expand(7, -1))
    assert torch.equal(z, before)


@pytest.mark.parametrize("dimension", [-1, 8])
def test_a_dimension_that_a_latent_does_not_have_is_an_error(dimension):
    with pytest.raises(IndexError, match=r"0\.\.7"):
        walk_dimension(torch.zeros(8), dimension, torch.zeros(2))
