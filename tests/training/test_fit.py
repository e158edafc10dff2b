import math
import warnings
from dataclasses import replace
from itertools import count

import pytest
import torch
from accelerate.state import AcceleratorState
from tiny import random_pixels, tiny_vae, tree

from vae_helpers.models import (
    STATE_FILE,
    list_checkpoints,
    load_checkpoint,
    load_training_state,
    save_training_state,
    to_float,
    update_ema,
)
from vae_helpers.training import (
    TrainingSettings,
    epoch_batches,
    fit,
    learning_rate_factor,
    make_batch,
    near,
    random_translate,
    validate,
)
from vae_helpers.training import loop as train
from vae_helpers.training import resume as going_on

TRAIN, VALIDATION = random_pixels(28, seed=1), random_pixels(12, seed=2)
THREE_EPOCHS = TrainingSettings(epochs=3, batch_size=8, average=0.0)
TIMES = ("seconds", "images_per_second")


@pytest.fixture(autouse=True)
def float32_on_the_cpu(monkeypatch):
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier test may have trained on a GPU
    monkeypatch.setenv("VAE_BF16", "0")
    monkeypatch.setattr(train, "best_device", lambda: torch.device("cpu"))


def trained(seed=0, data=(TRAIN, VALIDATION), settings=THREE_EPOCHS, **options):
    """(vae, history) of a run from the weights that `seed` gives."""
    vae = tiny_vae(seed)
    return vae, fit(vae, *data, settings, **options)


def same_weights(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def without_times(history):
    return [{name: value for name, value in record.items() if name not in TIMES} for record in history]


# ---------------------------------------------------------------- batches and schedule


@pytest.mark.parametrize(("n", "batch_size"), [(28, 8), (8, 8), (3, 8), (65, 64), (100, 7)])
def test_an_epoch_sees_every_image_once_in_batches_of_nearly_equal_size(n, batch_size):
    batches = list(epoch_batches(n, TrainingSettings(batch_size=batch_size), 1, (4,)))
    assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == list(range(n))
    sizes = [len(batch.indices) for batch in batches]
    assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1 and len(sizes) == math.ceil(n / batch_size)
    assert all(batch.flip.shape == batch.indices.shape and batch.eps.shape == (len(batch.indices), 4) for batch in batches)


def test_an_epoch_is_the_same_each_time_and_differs_from_other_epochs_and_seeds():
    def drawn(epoch, seed):
        batches = epoch_batches(50, TrainingSettings(seed=seed, batch_size=10, shift=2), epoch, (4,))
        return [torch.stack([torch.as_tensor(part) for part in parts]).tolist() for parts in zip(*batches, strict=True)]

    first = drawn(1, 0)
    assert first == drawn(1, 0)
    for other in (drawn(2, 0), drawn(1, 1)):
        assert not any(a == b for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_processes_share_a_batch_image_by_image_each_with_its_own_noise(processes):
    batch = next(epoch_batches(50, TrainingSettings(batch_size=13, shift=1), 1, (4,)))
    shares = [batch.share(process, processes) for process in range(processes)]
    sizes = [len(share.indices) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    place = {int(image): i for i, image in enumerate(batch.indices)}
    seen = [int(image) for share in shares for image in share.indices]
    assert sorted(seen) == sorted(place)
    for name in ("flip", "eps", "shift"):
        theirs = torch.cat([getattr(share, name) for share in shares])
        assert torch.equal(theirs, getattr(batch, name)[[place[image] for image in seen]])


def test_a_batch_is_its_images_mirrored_where_it_says_so_channels_last():
    batch = next(epoch_batches(28, TrainingSettings(batch_size=8), 1, (4,)))
    x = make_batch(batch, TRAIN, torch.device("cpu"))
    assert x.is_contiguous(memory_format=torch.channels_last) and 0 < batch.flip.sum() < 8
    for image, index, flip in zip(x, batch.indices, batch.flip, strict=True):
        assert torch.equal(image, to_float(TRAIN[index].flip(2) if flip else TRAIN[index]))


def test_images_stay_where_they_are_when_training_on_a_cpu():
    assert near(TRAIN, torch.device("cpu")) is TRAIN


def test_a_shift_by_a_whole_image_or_more_is_refused():
    with pytest.raises(ValueError, match="shift=16 must be less than the images' 16 pixels"):
        trained(settings=replace(THREE_EPOCHS, shift=16))


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setattr(train.Accelerator, "num_processes", 8)
    with pytest.raises(ValueError, match="batches of 7 images cannot be shared by 8 processes: raise batch_size"):
        trained()


def test_a_compiled_network_learns_what_the_other_does(monkeypatch):
    plain, history = trained()
    monkeypatch.setenv("VAE_COMPILE", "1")
    seen, real = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: seen.append(module) or real(module, backend="aot_eager"))
    compiled, other = trained()
    assert seen == [compiled]
    for a, b in zip(history, other, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)
    assert list(compiled.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("total", [1, 5, 60, 5000])
def test_the_learning_rate_rises_to_its_full_height_and_falls_to_nearly_zero(total):
    factors = [learning_rate_factor(step, total) for step in range(total)]
    top = factors.index(max(factors))
    assert 0.7 < max(factors) <= 1 and min(factors) > 0
    assert factors[: top + 1] == sorted(factors[: top + 1]) and factors[top:] == sorted(factors[top:], reverse=True)
    assert learning_rate_factor(total, total) == pytest.approx(0)
    if total > 1000:
        assert factors[0] == pytest.approx(0.01, rel=1e-3) and factors[-1] < 1e-5


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch_size": -1}, {"learning_rate": 0.0}, {"max_grad_norm": 0}, {"beta": -1}]
)
def test_settings_that_make_no_sense_are_refused_by_name(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        TrainingSettings(**wrong)


# ---------------------------------------------------------------- learning


def test_a_few_images_can_be_learned_by_heart():
    settings = TrainingSettings(epochs=15, batch_size=8, learning_rate=0.02, flip=False, average=0.0)
    _, history = trained(data=(TRAIN[:4].repeat(8, 1, 1, 1), TRAIN[:4]), settings=settings)
    for name in ("train_loss", "validation_loss"):
        assert history[-1][name] < 0.5 * history[0][name]


def test_the_history_has_one_record_an_epoch_of_finite_averages():
    _, history = trained()
    averages = [f"{part}_{name}" for part in ("train", "validation") for name in ("loss", "recon", "kl")]
    assert all(
        list(record) == ["epoch", "beta", *averages, "images_per_second", "seconds", "skipped_steps"] for record in history
    )
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert all(math.isfinite(value) for record in history for value in record.values())
    for record in history:
        for part in ("train", "validation"):
            assert record[f"{part}_loss"] == pytest.approx(record[f"{part}_recon"] + 0.00025 * record[f"{part}_kl"], rel=1e-5)


@pytest.mark.parametrize("bf16", ["0", "1"])
def test_the_same_seed_gives_the_same_weights_whatever_else_is_random(monkeypatch, bf16):
    monkeypatch.setenv("VAE_BF16", bf16)
    (first, history), other = trained(), tiny_vae()
    torch.manual_seed(99)
    again = fit(other, TRAIN, VALIDATION, THREE_EPOCHS)
    assert same_weights(first, other) and without_times(history) == without_times(again)


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"flip": False},
        {"beta": 0.1},
        {"learning_rate": 0.01},
        {"max_grad_norm": 0.1},
        {"calibrated": True},
        {"kl_warmup": 0.5, "beta": 0.1},
        {"free_bits": 1.0, "beta": 0.1},
    ],
)
def test_every_setting_makes_a_difference(changed):
    assert not same_weights(trained()[0], trained(settings=replace(THREE_EPOCHS, **changed))[0])


def test_cycles_make_a_difference_to_a_warm_up():
    once, twice = (replace(THREE_EPOCHS, beta=0.1, kl_warmup=0.5, kl_cycles=cycles) for cycles in (1, 2))
    assert not same_weights(trained(settings=once)[0], trained(settings=twice)[0])


def test_with_a_warm_up_the_first_step_has_no_kl_and_validation_has_all_of_it():
    one_step = TrainingSettings(epochs=1, batch_size=len(TRAIN), beta=0.1, kl_warmup=0.5)
    _, (record,) = trained(settings=one_step)
    assert record["train_loss"] == pytest.approx(record["train_recon"])
    assert record["validation_loss"] == pytest.approx(record["validation_recon"] + 0.1 * record["validation_kl"])


def test_a_calibrated_run_says_the_beta_of_its_own_error_and_its_checkpoint_keeps_it(tmp_path):
    settings = replace(THREE_EPOCHS, calibrated=True)
    _, history = trained(settings=settings, checkpoint_dir=tmp_path)
    for record in history:
        assert record["beta"] == pytest.approx(2 * record["validation_recon"] / TRAIN[0].numel())
        assert record["validation_loss"] == pytest.approx(record["validation_recon"] + record["beta"] * record["validation_kl"])
    assert load_checkpoint(list_checkpoints(tmp_path)[3]).beta == history[-1]["beta"]


def test_the_first_step_of_a_calibrated_run_weighs_the_kl_by_the_error_of_its_batch():
    one_step = TrainingSettings(epochs=1, batch_size=len(TRAIN), calibrated=True)
    _, (record,) = trained(settings=one_step)
    beta = 2 * record["train_recon"] / TRAIN[0].numel()
    assert record["train_loss"] == pytest.approx(record["train_recon"] + beta * record["train_kl"], rel=1e-5)


def test_a_run_with_a_given_beta_keeps_that(tmp_path):
    _, history = trained(settings=replace(THREE_EPOCHS, beta=0.01), checkpoint_dir=tmp_path)
    assert {record["beta"] for record in history} == {0.01}
    assert load_checkpoint(list_checkpoints(tmp_path)[3]).beta == 0.01


def test_a_calibrated_run_that_was_stopped_goes_on_as_if_it_never_had_been(tmp_path):
    settings = TrainingSettings(epochs=3, batch_size=8, calibrated=True, kl_warmup=0.4, kl_cycles=2, free_bits=0.1)
    unstopped, _ = trained(settings=settings)

    def stop(vae, record):
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(settings=settings, checkpoint_dir=tmp_path, on_epoch=stop)
    resumed, _ = trained(settings=settings, checkpoint_dir=tmp_path)
    assert same_weights(unstopped, resumed)


def test_an_average_run_gives_the_moving_average_of_the_weights_that_are_trained(monkeypatch):
    seen = []

    def watch(average, learner, step, decay):
        update_ema(average, learner, step, decay)
        seen.append((step, [weight.detach().clone() for weight in learner.parameters()]))

    monkeypatch.setattr(train, "follow", watch)
    vae, _ = trained(settings=replace(THREE_EPOCHS, average=0.5))
    plain, _ = trained()
    by_hand = [weight.detach().clone() for weight in tiny_vae().parameters()]
    for step, learner in seen:
        decay = min(0.5, (1 + step) / (10 + step))
        by_hand = [decay * old + (1 - decay) * new for old, new in zip(by_hand, learner, strict=True)]
    assert [step for step, _ in seen] == list(range(3 * 4))  # 28 images, 8 at a time
    assert all(torch.equal(a, b) for a, b in zip(seen[-1][1], plain.parameters(), strict=True))  # learned as without
    for average, wanted in zip(vae.parameters(), by_hand, strict=True):
        torch.testing.assert_close(average, wanted)


def test_figures_and_checkpoints_of_an_average_run_are_the_averages(tmp_path):
    settings = replace(THREE_EPOCHS, average=0.9)
    vae, history = trained(settings=settings, checkpoint_dir=tmp_path)
    assert same_weights(load_checkpoint(list_checkpoints(tmp_path)[3]).vae, vae)
    assert history[-1]["validation_recon"] == validate(vae, VALIDATION)["recon"]


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_average_run_that_was_stopped_goes_on_as_if_it_never_had_been(tmp_path, epoch):
    settings = replace(THREE_EPOCHS, average=0.9)

    def stop(vae, record):
        if record["epoch"] == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(settings=settings, checkpoint_dir=tmp_path, on_epoch=stop)
    resumed, _ = trained(seed=5, settings=settings, checkpoint_dir=tmp_path)
    assert same_weights(resumed, trained(settings=settings)[0])


def test_a_shift_moves_each_image_by_its_own_pixels_and_mirrors_the_border():
    x = torch.arange(2 * 3 * 5 * 5, dtype=torch.float32).view(2, 3, 5, 5)
    down_two_left_one, as_it_was = random_translate(x, torch.tensor([[0, 3], [2, 2]]), most=2)
    assert torch.equal(as_it_was, x[1])
    assert torch.equal(down_two_left_one[:, 2:, :4], x[0, :, :3, 1:])
    assert torch.equal(down_two_left_one[:, :2], down_two_left_one[:, 3:].flip(1)) and torch.equal(
        down_two_left_one[..., 4], down_two_left_one[..., 2]
    )


def test_shifts_are_drawn_for_each_image_from_every_place_and_leave_the_rest_of_the_run_as_it_was():
    plain, moved = (list(epoch_batches(500, TrainingSettings(batch_size=100, shift=most), 1, (4,))) for most in (0, 2))
    shifts = torch.cat([batch.shift for batch in moved])
    assert {tuple(shift) for shift in shifts.tolist()} == {(row, column) for row in range(5) for column in range(5)}
    assert torch.equal(moved[0].indices, plain[0].indices) and torch.equal(moved[0].eps, plain[0].eps)


def test_images_are_shifted_while_learning_and_not_when_validated(monkeypatch):
    settings, seen = replace(THREE_EPOCHS, shift=2, flip=False), []
    vae = tiny_vae()
    monkeypatch.setattr(vae, "forward", lambda x, eps: seen.append(x) or type(vae).forward(vae, x, eps))
    fit(vae, TRAIN, VALIDATION, settings)
    learned, validated = ([x for x in seen if (len(x) == 12) == held_out] for held_out in (False, True))
    originals = {image.numpy().tobytes() for image in to_float(TRAIN)}
    unmoved = sum(image.numpy().tobytes() in originals for x in learned for image in x)
    assert 0 <= unmoved < 0.2 * 3 * len(TRAIN)  # one in 25 is moved by nothing
    assert all(torch.equal(x, to_float(VALIDATION)) for x in validated) and len(validated) == 3


@pytest.mark.parametrize("average", [-0.1, 1.0])
def test_an_average_that_forgets_nothing_or_less_is_refused(average):
    with pytest.raises(ValueError, match=f"average={average}"):
        TrainingSettings(average=average)
    with pytest.raises(ValueError, match="shift=-1"):
        TrainingSettings(shift=-1)


@pytest.mark.parametrize(
    "wrong", [{"kl_warmup": 1.5}, {"kl_warmup": -0.1}, {"kl_cycles": 0}, {"kl_cycles": 2}, {"free_bits": -1.0}]
)
def test_schedules_that_cannot_be_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainingSettings(**wrong)


def test_after_each_epoch_the_model_is_shown_in_eval_mode_with_its_record():
    seen = []
    vae, history = trained(on_epoch=lambda vae, record: seen.append((vae.training, record)))
    assert seen == [(False, record) for record in history]
    assert not vae.training


def test_validation_does_not_depend_on_the_batch_size():
    vae = tiny_vae()
    together = validate(vae, VALIDATION)
    for batch_size in (1, 5):
        assert validate(vae, VALIDATION, batch_size=batch_size) == pytest.approx(together, rel=1e-5)


@pytest.mark.parametrize("which", ["train", "validation"])
@pytest.mark.parametrize(
    "wrong",
    [TRAIN.float(), TRAIN[0], TRAIN[:, :1], TRAIN[..., :8], TRAIN[:0], random_pixels(4, 24)],
    ids=lambda t: str(t.shape),
)
def test_images_that_do_not_fit_are_refused_by_name(which, wrong):
    with pytest.raises(ValueError, match=rf"{which} must be uint8 images \(N, 3, 16, 16\)"):
        fit(tiny_vae(), **{"train": TRAIN, "validation": VALIDATION} | {which: wrong})


# ---------------------------------------------------------------- batches gone bad


def losses_that_are_nan(monkeypatch, when):
    """Make the loss NaN in the training steps (counted from 0 over the whole run) for which `when` holds."""
    losses, steps = [], iter(range(10_000))

    def vae_loss(x_hat, *rest):
        parts = real(x_hat, *rest)
        if x_hat.requires_grad:  # a training step, not validation
            if when(next(steps)):
                return parts._replace(loss=parts.loss * math.nan)
            losses.append((len(x_hat), parts.loss.item()))
        return parts

    real = train.vae_loss
    monkeypatch.setattr(train, "vae_loss", vae_loss)
    return losses


def test_one_bad_batch_is_skipped_and_counted_and_does_not_enter_the_average(monkeypatch, capsys):
    losses = losses_that_are_nan(monkeypatch, when=lambda step: step == 1)
    vae, history = trained(settings=replace(THREE_EPOCHS, epochs=2))
    assert [record["skipped_steps"] for record in history] == [1, 0]
    assert capsys.readouterr().out.count("1 steps skipped") == 1
    assert all(weight.isfinite().all() for weight in vae.parameters())
    of_good_batches = sum(n * loss for n, loss in losses[:3]) / sum(n for n, _ in losses[:3])
    assert history[0]["train_loss"] == pytest.approx(of_good_batches, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_training_is_given_up_when_every_batch_is_bad(monkeypatch, batch_size):
    losses_that_are_nan(monkeypatch, when=lambda step: True)
    with pytest.raises(FloatingPointError, match=r"learning_rate=0\.002"):
        trained(settings=replace(THREE_EPOCHS, batch_size=batch_size))


# ---------------------------------------------------------------- checkpoints and going on


def test_every_epoch_leaves_a_checkpoint_that_can_be_used_alone(tmp_path):
    shown, x = [], torch.zeros(2, 3, 16, 16)
    vae, history = trained(checkpoint_dir=tmp_path, on_epoch=lambda vae, record: shown.append(vae.reconstruct(x)))
    assert set(tree(tmp_path)) == {"vae_model_epoch_1.pth", "vae_model_epoch_2.pth", "vae_model_epoch_3.pth", STATE_FILE}
    for epoch, path in list_checkpoints(tmp_path).items():
        checkpoint = load_checkpoint(path)
        assert (checkpoint.epoch, checkpoint.history) == (epoch, history[:epoch])
        assert checkpoint.settings["batch_size"] == 8
        torch.testing.assert_close(checkpoint.vae.reconstruct(x), shown[epoch - 1])
    assert same_weights(checkpoint.vae, vae)


def stop_after_epoch_1(patch):
    def on_epoch(vae, record):
        raise KeyboardInterrupt

    return on_epoch


def stop_in_the_middle_of_epoch_2(patch):
    def factor(step, total):
        if step == 6:  # an epoch has 4 steps
            raise KeyboardInterrupt
        return real(step, total)

    real = train.learning_rate_factor
    patch.setattr(train, "learning_rate_factor", factor)


def kill_between_checkpoint_and_training_state_of_epoch_2(patch):
    def save(folder, state):
        if state["epoch"] == 2:
            raise KeyboardInterrupt
        real(folder, state)

    real = train.save_training_state
    patch.setattr(train, "save_training_state", save)


@pytest.mark.parametrize(
    "stop", [stop_after_epoch_1, stop_in_the_middle_of_epoch_2, kill_between_checkpoint_and_training_state_of_epoch_2]
)
def test_a_run_that_was_stopped_goes_on_as_if_it_never_had_been(tmp_path, monkeypatch, capsys, stop):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        trained(checkpoint_dir=tmp_path, on_epoch=stop(patch))
    capsys.readouterr()
    resumed, history = trained(seed=5, checkpoint_dir=tmp_path)  # the weights it starts from no longer matter
    assert "Going on from vae_model_epoch_1.pth: 1 epochs done, 2 to go." in capsys.readouterr().out
    uninterrupted, whole = trained()
    assert same_weights(resumed, uninterrupted) and without_times(history) == without_times(whole)
    assert list(list_checkpoints(tmp_path)) == [1, 2, 3] and not list(tmp_path.glob("run-*"))


def test_a_finished_run_is_given_back_and_more_epochs_are_added_to_it(tmp_path):
    first, history = trained(checkpoint_dir=tmp_path)
    again, same = trained(seed=5, checkpoint_dir=tmp_path)
    assert same_weights(first, again) and same == history
    _, longer = trained(checkpoint_dir=tmp_path, settings=replace(THREE_EPOCHS, epochs=4))
    assert longer[:3] == history and [record["epoch"] for record in longer] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"data": (TRAIN.flip(0), VALIDATION)}, "other data"),
        ({"data": (TRAIN, VALIDATION[1:])}, "other data"),
        ({"settings": replace(THREE_EPOCHS, beta=0.1)}, "other settings"),
        ({"settings": replace(THREE_EPOCHS, seed=1)}, "other settings"),
        ({"settings": replace(THREE_EPOCHS, epochs=2)}, "3 epochs, more than the 2 asked for"),
    ],
)
def test_a_run_never_goes_on_from_another_but_moves_it_aside(tmp_path, capsys, other, reason):
    trained(checkpoint_dir=tmp_path / "models")
    before = tree(tmp_path / "models")
    capsys.readouterr()
    vae, history = trained(checkpoint_dir=tmp_path / "models", **other)
    (moved,) = (tmp_path / "models").glob("run-*")
    assert f"{reason}; moved to models/{moved.name}" in capsys.readouterr().out
    assert tree(moved) == before
    anew, expected = trained(**other)
    assert same_weights(vae, anew) and without_times(history) == without_times(expected)
    assert list(list_checkpoints(tmp_path / "models")) == [record["epoch"] for record in expected]


def test_a_run_of_another_architecture_is_moved_aside(tmp_path, capsys):
    trained(checkpoint_dir=tmp_path)
    history = fit(tiny_vae(latent_dim=5), TRAIN, VALIDATION, THREE_EPOCHS, tmp_path)
    assert "other architecture; moved to" in capsys.readouterr().out
    assert len(history) == 3 and len(list(tmp_path.glob("run-*/vae_model_epoch_*.pth"))) == 3


def lose(path):
    path.unlink()


def damage(path):
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize("harm", [lose, damage])
@pytest.mark.parametrize(
    ("harmed", "left"), [([STATE_FILE], 3), (["vae_model_epoch_3.pth"], 2), ([STATE_FILE, "vae_model_epoch_3.pth"], 2)]
)
def test_a_run_with_a_file_lost_or_damaged_goes_on_from_its_newest_whole_checkpoint_and_says_so(
    tmp_path, capsys, harm, harmed, left
):
    _, straight = trained(checkpoint_dir=tmp_path)
    for name in harmed:
        harm(tmp_path / name)
    capsys.readouterr()
    vae, history = trained(checkpoint_dir=tmp_path)
    said = capsys.readouterr().out
    assert f"Going on from vae_model_epoch_{left}.pth: {left} epochs done, {3 - left} to go. The optimizer starts anew." in said
    assert all(name in said for name in harmed) or harm is lose
    assert without_times(history)[:left] == without_times(straight)[:left] and len(history) == 3
    assert same_weights(vae, load_checkpoint(tmp_path / "vae_model_epoch_3.pth").vae)
    assert not list(tmp_path.glob("run-*"))
    if left == 2:  # it has learned on, not begun again
        assert history[2]["validation_loss"] < straight[1]["validation_loss"]


def test_after_a_new_beginning_of_the_optimizer_the_old_training_state_is_never_used_again(tmp_path, capsys, monkeypatch):
    trained(checkpoint_dir=tmp_path)
    damage(tmp_path / "vae_model_epoch_3.pth")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "save_training_state", interrupt)
        trained(checkpoint_dir=tmp_path)  # stopped between checkpoint 3 and its state
    capsys.readouterr()
    trained(checkpoint_dir=tmp_path)
    assert "Going on from vae_model_epoch_3.pth: 3 epochs done, 0 to go. The optimizer starts anew." in capsys.readouterr().out


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_state_of_no_epoch_yet_does_not_give_away_checkpoints_of_another_run(tmp_path, monkeypatch):
    trained(data=(TRAIN.flip(0), VALIDATION), checkpoint_dir=tmp_path / "other")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "epoch_batches", interrupt)
        trained(checkpoint_dir=tmp_path / "models")  # stopped in its first epoch
    for path in list_checkpoints(tmp_path / "other").values():
        path.rename(tmp_path / "models" / path.name)
    trained(checkpoint_dir=tmp_path / "models")
    assert len(list((tmp_path / "models").glob("run-*/vae_model_epoch_*.pth"))) == 3


@pytest.mark.parametrize(
    "state",
    [{"run": 3, "epoch": 3}, {"epoch": 3}, {"run": None, "epoch": "3"}, {"optimizer": None}, {"optimizer": {"state": 3}}],
    ids=str,
)
def test_a_training_state_that_is_none_is_not_used(tmp_path, capsys, state):
    straight, _ = trained(checkpoint_dir=tmp_path)
    whole = load_training_state(tmp_path)
    save_training_state(tmp_path, state if "epoch" in state else whole | state)
    vae, history = trained(checkpoint_dir=tmp_path)
    assert "3 epochs done, 0 to go. The optimizer starts anew." in capsys.readouterr().out
    assert same_weights(vae, straight) and len(history) == 3


def test_a_checkpoint_under_another_epochs_name_is_not_gone_on_from(tmp_path, capsys):
    trained(checkpoint_dir=tmp_path)
    (tmp_path / STATE_FILE).unlink()
    (tmp_path / "vae_model_epoch_2.pth").rename(tmp_path / "vae_model_epoch_9.pth")
    trained(settings=replace(THREE_EPOCHS, epochs=10), checkpoint_dir=tmp_path)
    assert "Going on from vae_model_epoch_3.pth" in capsys.readouterr().out


@pytest.mark.parametrize("harm", [lose, damage])
def test_a_run_of_other_data_that_lost_its_state_is_moved_aside(tmp_path, capsys, harm):
    trained(data=(TRAIN.flip(0), VALIDATION), checkpoint_dir=tmp_path)
    harm(tmp_path / STATE_FILE)
    vae, _ = trained(checkpoint_dir=tmp_path)
    assert "no checkpoint of this one that is whole; moved to" in capsys.readouterr().out
    assert len(list(tmp_path.glob("run-*/vae_model_epoch_*.pth"))) == 3
    assert same_weights(vae, trained()[0]) and list(list_checkpoints(tmp_path)) == [1, 2, 3]


@pytest.mark.parametrize(("keep_last", "kept"), [(None, [1, 2, 3]), (1, [3]), (2, [2, 3]), (9, [1, 2, 3])])
def test_only_the_newest_checkpoints_are_kept_when_asked(tmp_path, keep_last, kept):
    trained(checkpoint_dir=tmp_path, keep_last=keep_last)
    assert list(list_checkpoints(tmp_path)) == kept
    longer = replace(THREE_EPOCHS, epochs=5)
    assert len(trained(settings=longer, checkpoint_dir=tmp_path, keep_last=keep_last)[1]) == 5


def test_keeping_no_checkpoint_is_refused():
    with pytest.raises(ValueError, match="keep_last=0"):
        trained(keep_last=0)


def test_a_warning_tells_before_training_that_the_checkpoints_will_not_fit(tmp_path, monkeypatch):
    size = sum(4 * weight.numel() for weight in tiny_vae().state_dict().values())
    for room, keep_last, warned in ((9 * size, None, False), (8 * size, None, True), (8 * size, 2, False)):
        monkeypatch.setattr(going_on, "free_bytes", lambda path, room=room: room)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trained(checkpoint_dir=tmp_path / f"{room}{keep_last}", keep_last=keep_last)
        assert any("keep_last" in str(w.message) for w in caught) == warned


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_stopped_in_the_middle_of_an_epoch_the_model_can_be_used_and_the_run_resumed(tmp_path, capsys, monkeypatch, average):
    settings = replace(THREE_EPOCHS, average=average)
    straight, _ = trained(settings=settings)
    vae, steps, clip = tiny_vae(), count(), torch.nn.utils.clip_grad_norm_

    def stop_at_step_6(*args):
        if next(steps) == 6:
            raise KeyboardInterrupt
        return clip(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch.nn.utils, "clip_grad_norm_", stop_at_step_6)
        fit(vae, TRAIN, VALIDATION, settings, tmp_path)
    assert "Stopped." in capsys.readouterr().out
    assert not vae.training and vae.sample(2).isfinite().all()
    assert list(list_checkpoints(tmp_path)) == [1]
    assert not same_weights(vae, load_checkpoint(tmp_path / "vae_model_epoch_1.pth").vae), "it is the model of that moment"
    assert same_weights(trained(settings=settings, checkpoint_dir=tmp_path)[0], straight)
