import math
import random
from dataclasses import replace

import accelerate
import pytest
import torch
from short_runs import THREE_EPOCHS, TRAIN, VALIDATION, at_training_steps, plain_run, same_weights, trained, without_times
from tiny import random_pixels, tiny_vae

from vae_helpers.models import list_checkpoints, load_checkpoint, to_float
from vae_helpers.training import TrainingSettings, fit, update_ema

N_DIMS = TRAIN[0].numel()


# ---------------------------------------------------------------- what cannot be trained with


@pytest.mark.parametrize(
    "wrong",
    [
        *({"epochs": 0}, {"batch_size": -1}, {"learning_rate": 0.0}, {"max_grad_norm": 0}, {"beta": -1}, {"free_bits": -1.0}),
        *({"kl_warmup": 1.5}, {"kl_warmup": -0.1}, {"ema_decay": -0.1}, {"ema_decay": 1.1}, {"max_shift": -1}),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused_by_name(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        TrainingSettings(**wrong)


@pytest.mark.parametrize("which", ["train", "validation"])
@pytest.mark.parametrize(
    "wrong", [TRAIN.float(), TRAIN[0], TRAIN[:, :1], TRAIN[:0], random_pixels(4, 24)], ids=lambda t: str(t.shape)
)
def test_images_that_do_not_fit_are_refused_by_name(which, wrong):
    with pytest.raises(ValueError, match=rf"{which} must be uint8 \(N, 3, 16, 16\)"):
        fit(tiny_vae(), **{"train": TRAIN, "validation": VALIDATION} | {which: wrong})


def test_other_arguments_that_cannot_be_are_refused_by_name(monkeypatch):
    with pytest.raises(ValueError, match="max_shift=16 must be less than the images' 16 pixels"):
        trained(settings=replace(THREE_EPOCHS, max_shift=16))
    with pytest.raises(ValueError, match="precision='half' must be auto, bfloat16 or float32"):
        trained(precision="half")
    monkeypatch.setattr(accelerate.Accelerator, "num_processes", 8)
    with pytest.raises(ValueError, match="batches of 7 images cannot be shared by 8 processes: raise batch_size"):
        trained()


# ---------------------------------------------------------------- learning


def test_a_few_images_can_be_memorised():
    settings = TrainingSettings(epochs=15, batch_size=8, learning_rate=0.02, flip=False, ema_decay=0.0)
    _, history = trained(data=(TRAIN[:4].repeat(8, 1, 1, 1), TRAIN[:4]), settings=settings)
    for name in ("train_loss", "validation_loss"):
        assert history[-1][name] < 0.5 * history[0][name]


def test_the_history_has_one_record_an_epoch_of_finite_averages_shown_with_the_model_in_eval_mode():
    shown = []
    vae, history = trained(on_epoch=lambda vae, record: shown.append((vae.training, record)))
    assert shown == [(False, record) for record in history] and not vae.training
    averages = [f"{part}_{name}" for part in ("train", "validation") for name in ("loss", "recon", "kl")]
    for epoch, record in enumerate(history, 1):
        assert set(record) == {"epoch", "beta", *averages, "images_per_second", "seconds", "skipped_steps"}
        assert record["epoch"] == epoch and all(math.isfinite(value) for value in record.values())
        for part in ("train", "validation"):
            assert record[f"{part}_loss"] == pytest.approx(record[f"{part}_recon"] + 0.00025 * record[f"{part}_kl"], rel=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_seed_gives_the_same_weights_whatever_else_is_random_or_in_the_environment(monkeypatch, precision):
    first, history = trained(precision=precision)
    other = tiny_vae()
    torch.manual_seed(99)
    for name, value in (("VAE_BF16", "1" if precision == "float32" else "0"), ("ACCELERATE_MIXED_PRECISION", "bf16")):
        monkeypatch.setenv(name, value)
    _, again = trained(vae=other, precision=precision)
    assert same_weights(first, other) and without_times(history) == without_times(again)


def test_the_precision_makes_a_difference_and_auto_is_one_of_both():
    exact, rounded, auto = (trained(precision=precision)[0] for precision in ("float32", "bfloat16", "auto"))
    assert not same_weights(exact, rounded) and (same_weights(auto, exact) or same_weights(auto, rounded))


def test_no_global_random_state_is_touched(tmp_path):
    vae = tiny_vae()
    torch.manual_seed(5)
    before = random.getstate(), torch.get_rng_state().tolist()
    trained(vae=vae, settings=TrainingSettings(epochs=2, batch_size=8, max_shift=1), checkpoint_dir=tmp_path)
    assert before == (random.getstate(), torch.get_rng_state().tolist())


@pytest.mark.parametrize(
    "changed",
    [
        *({"seed": 1}, {"flip": False}, {"beta": 0.1}, {"learning_rate": 0.01}, {"max_grad_norm": 0.1}, {"calibrated": True}),
        *({"max_shift": 1}, {"ema_decay": 0.5}, {"kl_warmup": 0.5, "beta": 0.1}, {"free_bits": 1.0, "beta": 0.1}),
    ],
    ids=str,
)
def test_every_setting_makes_a_difference(changed):
    assert not same_weights(plain_run()[0], trained(settings=replace(THREE_EPOCHS, **changed))[0])


def test_with_a_warm_up_the_first_step_has_no_kl_and_validation_has_all_of_it():
    one_step = TrainingSettings(epochs=1, batch_size=len(TRAIN), beta=0.1, kl_warmup=0.5)
    _, (record,) = trained(settings=one_step)
    assert record["train_loss"] == pytest.approx(record["train_recon"])
    assert record["validation_loss"] == pytest.approx(record["validation_recon"] + 0.1 * record["validation_kl"])


def test_free_bits_make_the_loss_count_at_least_so_much_for_each_latent_number():
    one_step = TrainingSettings(epochs=1, batch_size=len(TRAIN), beta=0.1, free_bits=50.0)
    _, (record,) = trained(settings=one_step)
    assert record["train_kl"] < 4 * 50 and record["train_loss"] == pytest.approx(record["train_recon"] + 0.1 * 4 * 50)


def test_a_calibrated_run_weighs_the_kl_by_its_own_error_and_its_checkpoint_keeps_that_beta(tmp_path):
    one_step = TrainingSettings(epochs=1, batch_size=len(TRAIN), calibrated=True)
    _, (record,) = trained(settings=one_step, checkpoint_dir=tmp_path)
    for part, beta in (("train", 2 * record["train_recon"] / N_DIMS), ("validation", record["beta"])):
        assert record[f"{part}_loss"] == pytest.approx(record[f"{part}_recon"] + beta * record[f"{part}_kl"], rel=1e-5)
    assert record["beta"] == pytest.approx(2 * record["validation_recon"] / N_DIMS)
    assert load_checkpoint(list_checkpoints(tmp_path)[1]).beta == record["beta"]


def test_with_ema_decay_the_model_is_the_moving_average_of_weights_that_are_trained_as_without(tmp_path):
    plain, by_hand, seen = tiny_vae(), tiny_vae(), []

    def follow(step, outputs):  # before each step, so what the one before it made of the weights
        if step:
            update_ema(by_hand, plain, step - 1, 0.5)

    trained(vae=at_training_steps(plain, follow))
    update_ema(by_hand, plain, 3 * 4 - 1, 0.5)
    settings = replace(THREE_EPOCHS, ema_decay=0.5)
    vae, _ = trained(settings=settings, checkpoint_dir=tmp_path, on_epoch=lambda vae, _: seen.append(vae))
    assert same_weights(vae, by_hand) and not same_weights(vae, plain) and seen == [vae] * 3
    assert same_weights(load_checkpoint(list_checkpoints(tmp_path)[3]).vae, vae)


def test_images_are_shifted_while_learning_and_not_when_validated():
    seen, vae = {True: [], False: []}, tiny_vae()
    vae.register_forward_pre_hook(lambda module, args: seen[module.training].extend(args[0]))
    trained(vae=vae, settings=replace(THREE_EPOCHS, max_shift=2, flip=False))
    originals = {image.numpy().tobytes() for image in to_float(TRAIN)}
    unmoved = sum(image.numpy().tobytes() in originals for image in seen[True])
    assert len(seen[True]) == 3 * len(TRAIN) and unmoved < 0.2 * 3 * len(TRAIN)  # one in 25 is moved by nothing
    assert torch.equal(torch.stack(seen[False]), to_float(VALIDATION).repeat(3, 1, 1, 1))


def test_a_compiled_network_learns_what_the_other_does(monkeypatch):
    plain, history = plain_run()
    seen, real = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: seen.append(module) or real(module, backend="eager"))
    compiled, other = trained(compile=True)
    assert seen[-1] is compiled and list(compiled.state_dict()) == list(plain.state_dict())
    for a, b in zip(history, other, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)


def test_where_nothing_can_be_compiled_training_says_so_in_a_line_and_goes_on(monkeypatch, capsys):
    def fails(module):
        raise RuntimeError("no compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", fails)
    _, history = trained(compile=True)
    assert len(history) == len(plain_run()[1])
    assert capsys.readouterr().out.splitlines()[0] == "torch.compile fails here (RuntimeError). Going on without it."


@pytest.mark.parametrize(
    "wrong", [{"learning_rate": math.inf}, {"beta": math.inf}, {"beta": math.nan}, {"seed": 10**20}, {"seed": -1}]
)
def test_settings_that_are_not_finite_or_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}=.* must be "):
        TrainingSettings(**wrong)


# ---------------------------------------------------------------- steps that are not finite


def test_one_bad_batch_is_skipped_and_counted_and_does_not_enter_the_average(capsys):
    def spoil(step, outputs):
        return outputs._replace(x_hat=outputs.x_hat * math.nan) if step == 1 else None

    vae, history = trained(vae=at_training_steps(tiny_vae(), spoil))
    assert [record["skipped_steps"] for record in history] == [1, 0, 0]
    assert capsys.readouterr().out.count("1 steps skipped") == 1
    assert all(weight.isfinite().all() for weight in vae.parameters())
    assert all(math.isfinite(value) for record in history for value in record.values())


def test_training_is_given_up_when_every_batch_is_bad():
    vae = at_training_steps(tiny_vae(), lambda step, outputs: outputs._replace(x_hat=outputs.x_hat * math.nan))
    with pytest.raises(FloatingPointError, match="10 times in a row: lower the learning_rate"):
        trained(vae=vae)
