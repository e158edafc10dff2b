"""What `train --auto` chooses."""

from vae_helpers.training import plan_training

GB = 10**9


def test_few_photos_get_the_small_network_and_many_the_large_decoder():
    few, many = plan_training(300, 56, 8 * GB, gpu=False), plan_training(5000, 56, 8 * GB, gpu=False)
    assert (few.network, many.network) == ("vector", "residual")
    assert few.settings["epochs"] > many.settings["epochs"] >= 10


def test_a_batch_fits_into_the_memory_and_shrinks_with_larger_images():
    sizes = [plan_training(5000, size, 1 * GB, gpu=False).settings["batch_size"] for size in (32, 64, 128, 256)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 32 and 4 <= sizes[-1] < 32


def test_a_gpu_learns_from_more_images_with_a_wider_network_in_larger_batches():
    cpu, gpu = (plan_training(20_000, 64, 40 * GB, gpu) for gpu in (False, True))
    assert gpu.width > cpu.width and gpu.settings["batch_size"] > cpu.settings["batch_size"]
    assert gpu.settings["epochs"] > cpu.settings["epochs"]


def test_the_choice_is_said_as_options_of_train_with_a_reason():
    plan = plan_training(5000, 64, 8 * GB, gpu=False)
    for word in (
        "5000 photos of 64 x 64",
        "8.0 GB",
        "--network residual",
        "--batch-size 32",
        "--epochs 12",
        "from 1000 photos on",
    ):
        assert word in plan.reason
