import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from short_runs import THREE_EPOCHS, TRAIN, VALIDATION, at_training_steps, plain_run, same_weights, trained, without_times
from tiny import random_pixels, tiny_vae, tree

from vae_helpers.models import (
    STATE_FILE,
    SpatialVAE,
    list_checkpoints,
    load_checkpoint,
    load_training_state,
    save_training_state,
)
from vae_helpers.training import TrainingSettings

OLD = Path(__file__).parents[1] / "fixtures" / "9addd0c"


def stopped(folder, after=1, **options):
    """A run that is stopped (Ctrl-C) when its epoch `after` is done."""

    def stop(vae, record):
        if record["epoch"] == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(checkpoint_dir=folder, on_epoch=stop, **options)


def test_every_epoch_leaves_a_checkpoint_that_can_be_used_alone(tmp_path):
    made = []
    vae, history = trained(checkpoint_dir=tmp_path, on_epoch=lambda vae, record: made.append(vae.sample(2).sum()))
    checkpoints = {f"vae_model_epoch_{epoch}.pth" for epoch in (1, 2, 3)}
    assert set(tree(tmp_path)) == checkpoints | {STATE_FILE, "history.csv", "config.json"}
    for epoch, path in list_checkpoints(tmp_path).items():
        checkpoint = load_checkpoint(path)
        assert (checkpoint.epoch, checkpoint.history) == (epoch, history[:epoch])
        assert checkpoint.settings["batch_size"] == 8
    assert same_weights(checkpoint.vae, vae) and len(made) == 3
    rows = csv.DictReader((tmp_path / "history.csv").read_text().splitlines())
    assert [{name: float(value) for name, value in row.items()} for row in rows] == history


# ---------------------------------------------------------------- a run that goes on


@pytest.mark.parametrize(
    ("epoch", "changed"),
    [
        (1, {"ema_decay": 0.9}),
        (2, {"ema_decay": 0.9, "calibrated": True, "kl_warmup": 0.4, "free_bits": 0.1, "max_shift": 1}),
    ],
    ids=str,
)
def test_a_run_that_was_stopped_goes_on_as_if_it_never_had_been(tmp_path, capsys, epoch, changed):
    settings = replace(THREE_EPOCHS, **changed)
    stopped(tmp_path, epoch, settings=settings)
    capsys.readouterr()
    resumed, history = trained(seed=5, settings=settings, checkpoint_dir=tmp_path)  # the weights it starts from do not matter
    going_on = f"Going on from vae_model_epoch_{epoch}.pth: {epoch} epochs done, {3 - epoch} to go."
    assert going_on in capsys.readouterr().out
    uninterrupted, whole = trained(settings=settings)
    assert same_weights(resumed, uninterrupted) and without_times(history) == without_times(whole)
    assert list(list_checkpoints(tmp_path)) == [1, 2, 3] and not list(tmp_path.glob("run-*"))


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_stopped_in_the_middle_of_an_epoch_the_model_can_be_used_and_the_run_resumed(tmp_path, ema_decay):
    def stop(step, outputs):
        if step == 6:  # an epoch has 4 steps
            raise KeyboardInterrupt

    settings, vae = replace(THREE_EPOCHS, ema_decay=ema_decay), at_training_steps(tiny_vae(), stop)
    with pytest.raises(KeyboardInterrupt):
        trained(vae=vae, settings=settings, checkpoint_dir=tmp_path)
    assert not vae.training and vae.sample(2).isfinite().all()
    assert list(list_checkpoints(tmp_path)) == [1]
    assert not same_weights(vae, load_checkpoint(tmp_path / "vae_model_epoch_1.pth").vae), "it is the model of that moment"
    assert same_weights(trained(settings=settings, checkpoint_dir=tmp_path)[0], trained(settings=settings)[0])


@pytest.mark.parametrize("epoch", [0, 1])
def test_killed_between_a_checkpoint_and_its_training_state_a_run_goes_on_from_the_one_before(tmp_path, epoch):
    stopped(tmp_path / "before", after=1)
    state = load_training_state(tmp_path / "before")
    stopped(tmp_path / "models", after=epoch + 1)
    save_training_state(tmp_path / "models", state if epoch else state | {"epoch": 0})
    resumed, history = trained(checkpoint_dir=tmp_path / "models")
    uninterrupted, whole = plain_run()
    assert same_weights(resumed, uninterrupted) and without_times(history) == without_times(whole)
    assert not list((tmp_path / "models").glob("run-*"))


def test_a_finished_run_is_given_back_and_more_epochs_are_added_to_it(tmp_path):
    first, history = trained(checkpoint_dir=tmp_path)
    again, same = trained(seed=5, checkpoint_dir=tmp_path)
    assert same_weights(first, again) and same == history
    _, longer = trained(checkpoint_dir=tmp_path, settings=replace(THREE_EPOCHS, epochs=4))
    assert longer[:3] == history and [record["epoch"] for record in longer] == [1, 2, 3, 4]


@pytest.mark.parametrize("gone", [("run", "settings", "kl_warmup"), ("run", "settings", "ema_decay"), ("model",)], ids=str)
def test_a_state_of_another_release_goes_on_exactly_without_a_field_and_with_an_unknown_one(tmp_path, capsys, gone):
    settings = replace(THREE_EPOCHS, ema_decay=TrainingSettings().ema_decay if "ema_decay" in gone else 0.0)
    stopped(tmp_path, settings=settings)
    state = load_training_state(tmp_path)
    state["run"]["settings"]["of_the_future"] = state["of_the_future"] = 3
    *path, name = gone
    part = state
    for key in path:
        part = part[key]
    del part[name]
    save_training_state(tmp_path, state)
    capsys.readouterr()
    resumed, history = trained(checkpoint_dir=tmp_path, settings=settings)
    assert "Going on from vae_model_epoch_1.pth: 1 epochs done, 2 to go.\n" in capsys.readouterr().out
    uninterrupted, whole = trained(settings=settings)
    assert same_weights(resumed, uninterrupted) and without_times(history) == without_times(whole)


@pytest.mark.parametrize("kind", ["vector", "spatial"])
def test_a_run_that_tree_9addd0c_began_goes_on_exactly(tmp_path, capsys, kind):
    shutil.copytree(OLD / kind, tmp_path / "models")
    saved = load_checkpoint(OLD / kind / "vae_model_epoch_2.pth")
    made_with = load_training_state(OLD / kind)["run"]["settings"]
    settings = TrainingSettings(epochs=3, **{name: value for name, value in made_with.items() if name != "kl_cycles"})
    vae = SpatialVAE(2, 2, groups=1, image_size=16) if kind == "spatial" else tiny_vae(latent_dim=2)
    data = random_pixels(12, seed=0), random_pixels(4, seed=9)
    _, history = trained(vae=vae, data=data, settings=settings, checkpoint_dir=tmp_path / "models")
    assert "Going on from vae_model_epoch_2.pth: 2 epochs done, 1 to go.\n" in capsys.readouterr().out
    assert history[:2] == saved.history
    expected = json.loads((OLD / kind / "history.json").read_text())
    assert without_times(history) == [pytest.approx(record, rel=1e-5) for record in expected]


# ---------------------------------------------------------------- runs that do not go on


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"data": (TRAIN.flip(0), VALIDATION)}, "other data"),
        ({"data": (TRAIN, VALIDATION[1:])}, "other data"),
        ({"vae": tiny_vae(latent_dim=5)}, "other architecture"),
        ({"settings": replace(THREE_EPOCHS, beta=0.1, seed=1)}, "other beta, other seed"),
        ({"settings": replace(THREE_EPOCHS, epochs=2)}, "3 epochs, more than the 2 asked for"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_never_goes_on_from_another_but_moves_it_aside(tmp_path, capsys, other, reason):
    trained(checkpoint_dir=tmp_path / "models")
    before = tree(tmp_path / "models")
    capsys.readouterr()
    _, history = trained(checkpoint_dir=tmp_path / "models", **other)
    (moved,) = (tmp_path / "models").glob("run-*")
    assert f"{reason}; moved to models/{moved.name}. Starting anew." in capsys.readouterr().out
    assert tree(moved) == before
    assert list(list_checkpoints(tmp_path / "models")) == [record["epoch"] for record in history]


def test_a_run_of_9addd0c_with_cycles_which_are_gone_is_another_run(tmp_path):
    shutil.copytree(OLD / "vector", tmp_path / "models")
    state = load_training_state(tmp_path / "models")
    made_with = state["run"]["settings"]
    save_training_state(tmp_path / "models", state | {"run": state["run"] | {"settings": made_with | {"kl_cycles": 4}}})
    settings = TrainingSettings(epochs=3, **{name: value for name, value in made_with.items() if name != "kl_cycles"})
    data = random_pixels(12, seed=0), random_pixels(4, seed=9)
    trained(vae=tiny_vae(latent_dim=2), data=data, settings=settings, checkpoint_dir=tmp_path / "models")
    assert len(list((tmp_path / "models").glob("run-*"))) == 1


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


@pytest.mark.parametrize("state", [{"run": 3, "epoch": 3}, {"epoch": 3}, {"run": None, "epoch": "3"}], ids=str)
def test_a_training_state_that_is_none_is_not_used(tmp_path, capsys, state):
    straight, _ = trained(checkpoint_dir=tmp_path)
    save_training_state(tmp_path, state)
    vae, history = trained(checkpoint_dir=tmp_path)
    assert "3 epochs done, 0 to go. The optimizer starts anew." in capsys.readouterr().out
    assert same_weights(vae, straight) and len(history) == 3


def test_after_a_new_beginning_of_the_optimizer_the_old_training_state_is_never_used_again(tmp_path):
    trained(checkpoint_dir=tmp_path)
    damage(tmp_path / "vae_model_epoch_3.pth")
    stopped(tmp_path, after=3)
    assert load_training_state(tmp_path)["optimizer"]["state"][0]["step"] == 4  # of one epoch


@pytest.mark.parametrize("harm", [lose, damage, None])
def test_checkpoints_of_another_run_are_moved_aside_also_where_no_state_says_whose_they_are(tmp_path, harm):
    trained(data=(TRAIN.flip(0), VALIDATION), checkpoint_dir=tmp_path)
    if harm:
        harm(tmp_path / STATE_FILE)
    else:  # that of this run, stopped in its first epoch
        save_training_state(tmp_path, {"run": load_training_state(tmp_path)["run"], "epoch": 0, "name": "run-of-this"})
    trained(checkpoint_dir=tmp_path)
    assert len(list(tmp_path.glob("run-*/vae_model_epoch_*.pth"))) == 3
    assert list(list_checkpoints(tmp_path)) == [1, 2, 3]


# ---------------------------------------------------------------- one writer at a time

HOLD = """
import sys
from vae_helpers.files import lock_folder
with lock_folder(sys.argv[1], "the checkpoints"):
    print(flush=True)
    input()
"""


def test_a_folder_in_which_another_process_writes_is_left_as_it_is(tmp_path):
    trained(checkpoint_dir=tmp_path / "models")
    before = tree(tmp_path / "models")
    command = [sys.executable, "-c", HOLD, str(tmp_path / "models")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()  # it holds the folder now
        with pytest.raises(BlockingIOError, match=rf"process {other.pid} .* since 20\d\d-"):
            trained(settings=replace(THREE_EPOCHS, beta=0.1), checkpoint_dir=tmp_path / "models")
        assert tree(tmp_path / "models") == before
        other.kill()
    assert len(trained(checkpoint_dir=tmp_path / "models")[1]) == 3


def test_while_a_run_goes_on_no_other_process_can_write_in_its_folder(tmp_path):
    told = []

    def on_epoch(vae, record):
        command = [sys.executable, "-c", HOLD, str(tmp_path / "models")]
        told.append(subprocess.run(command, input="", capture_output=True, text=True, timeout=60).stderr)

    trained(settings=replace(THREE_EPOCHS, epochs=1), checkpoint_dir=tmp_path / "models", on_epoch=on_epoch)
    assert len(told) == 1 and f"being written by process {os.getpid()} " in told[0]
