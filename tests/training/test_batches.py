import math

import pytest
import torch
from tiny import random_pixels

from vae_helpers.models import to_float
from vae_helpers.training import TrainingSettings, epoch_batches, make_batch, random_translate

TRAIN = random_pixels(28, seed=1)


@pytest.mark.parametrize(("n", "batch_size"), [(28, 8), (8, 8), (3, 8), (65, 64), (100, 7)])
def test_an_epoch_sees_every_image_once_in_batches_of_nearly_equal_size(n, batch_size):
    batches = list(epoch_batches(n, TrainingSettings(batch_size=batch_size), 1, (4,)))
    assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == list(range(n))
    sizes = [len(batch.indices) for batch in batches]
    assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1 and len(sizes) == math.ceil(n / batch_size)
    assert all(batch.flip.shape == batch.indices.shape and batch.eps.shape == (len(batch.indices), 4) for batch in batches)


def test_an_epoch_is_the_same_each_time_and_differs_from_other_epochs_and_seeds():
    def drawn(epoch, seed):
        batches = epoch_batches(50, TrainingSettings(seed=seed, batch_size=10, max_shift=2), epoch, (4,))
        return [torch.stack(parts).tolist() for parts in zip(*batches, strict=True)]

    first = drawn(1, 0)
    assert first == drawn(1, 0)
    for other in (drawn(2, 0), drawn(1, 1)):
        assert not any(a == b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("world_size", [1, 3, 8])
def test_processes_share_a_batch_image_by_image_each_with_its_own_noise(world_size):
    batch = next(epoch_batches(50, TrainingSettings(batch_size=13, max_shift=1), 1, (4,)))
    shards = [batch.shard(rank, world_size) for rank in range(world_size)]
    sizes = [len(shard.indices) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    place = {int(image): i for i, image in enumerate(batch.indices)}
    seen = [int(image) for shard in shards for image in shard.indices]
    assert sorted(seen) == sorted(place)
    for name in ("flip", "eps", "shift"):
        theirs = torch.cat([getattr(shard, name) for shard in shards])
        assert torch.equal(theirs, getattr(batch, name)[[place[image] for image in seen]])


def test_a_batch_is_its_images_mirrored_where_it_says_so_channels_last():
    batch = next(epoch_batches(28, TrainingSettings(batch_size=8), 1, (4,)))
    x = make_batch(batch, TRAIN, torch.device("cpu"))
    assert x.is_contiguous(memory_format=torch.channels_last) and 0 < batch.flip.sum() < 8
    for image, index, flip in zip(x, batch.indices, batch.flip, strict=True):
        assert torch.equal(image, to_float(TRAIN[index].flip(2) if flip else TRAIN[index]))


def test_a_shift_moves_each_image_by_its_own_pixels_and_mirrors_the_border():
    x = torch.arange(2 * 3 * 5 * 5, dtype=torch.float32).view(2, 3, 5, 5)
    down_two_left_one, as_it_was = random_translate(x, torch.tensor([[2, -1], [0, 0]]), most=2)
    assert torch.equal(as_it_was, x[1])
    assert torch.equal(down_two_left_one[:, 2:, :4], x[0, :, :3, 1:])
    assert torch.equal(down_two_left_one[:, :2], down_two_left_one[:, 3:].flip(1))
    assert torch.equal(down_two_left_one[..., 4], down_two_left_one[..., 2])


def test_shifts_are_drawn_for_each_image_from_every_place_and_leave_the_rest_of_the_run_as_it_was():
    plain, moved = (list(epoch_batches(500, TrainingSettings(batch_size=100, max_shift=m), 1, (4,))) for m in (0, 2))
    shifts = torch.cat([batch.shift for batch in moved])
    assert {tuple(shift) for shift in shifts.tolist()} == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}
    assert torch.equal(moved[0].indices, plain[0].indices) and torch.equal(moved[0].eps, plain[0].eps)
