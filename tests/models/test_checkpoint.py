import pickle
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.torch import save_file
from tiny import random_pixels, tiny_vae, tree, write_files

from vae_helpers.files import load_weights, save_weights
from vae_helpers.models import (
    BETA,
    STATE_FILE,
    Checkpoint,
    archive_run,
    checkpoint_path,
    list_checkpoints,
    load_checkpoint,
    load_training_state,
    save_checkpoint,
    save_training_state,
    to_float,
)

OLD = Path(__file__).parents[1] / "fixtures" / "9addd0c"
LINEAR = "encoder.linear_branch.weight"
CHECKPOINT_NAMES = [f"vae_model_epoch_{epoch}.pth" for epoch in (1, 2, 9, 10, 100)]


@pytest.fixture(params=["pth", "safetensors"])
def saved(request, tmp_path):
    """A checkpoint of a tiny model in either format."""
    path = checkpoint_path(tmp_path / "models", 3).with_suffix(f".{request.param}")
    vae = tiny_vae(widths=(8, 16, 8))
    save_checkpoint(path, Checkpoint(vae, 3, [{"epoch": 1, "train_loss": 0.5}], {"beta": 0.1}, "run-1"))
    return path


def content_of(path):
    """What is in a checkpoint, and a function that puts something else in its place."""
    if path.suffix == ".pth":
        return torch.load(path, weights_only=True), lambda content: torch.save(content, path)
    weights, metadata = load_weights(path)

    def put(content):
        weights = content.pop("weights", {})
        save_weights(path, weights if isinstance(weights, dict) else {}, content)

    return metadata | {"weights": weights}, put


@pytest.mark.parametrize(
    ("field", "default"), [("epoch", 0), ("history", []), ("settings", {}), ("run", ""), ("preprocessing", None)]
)
def test_a_field_that_is_missing_has_its_default_and_one_that_is_not_known_is_ignored(saved, field, default):
    content, put = content_of(saved)
    del content[field]
    put(content | {"colour": "brown", "preprocessing": content.get("preprocessing", {}) | {"mirror": True}})
    loaded = load_checkpoint(saved)
    assert loaded.vae.crop == "none" and loaded.vae.image_size == 16
    assert default is None or getattr(loaded, field) == default
    assert loaded.beta == (BETA if field == "settings" else 0.1)


# ---------------------------------------------------------------- files of tree 9addd0c


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("vector/vae_model_epoch_2.pth", "vector"),
        ("spatial/vae_model_epoch_2.pth", "spatial"),
        ("attention.pth", "attention"),
        ("vector.safetensors", "vector"),
        ("spatial_fp16.safetensors", "spatial"),
    ],
)
def test_a_checkpoint_of_9addd0c_makes_the_pictures_that_it_made(file, kind):
    expected, loaded = load_weights(OLD / "expected.safetensors")[0], load_checkpoint(OLD / file)
    x = to_float(random_pixels(2, 16, seed=5))
    (mu, logvar), x_hat = loaded.vae.encode(x), loaded.vae.reconstruct(x)
    close = {"atol": 1e-3, "rtol": 1e-3} if "fp16" in file else {"atol": 1e-4, "rtol": 1e-4}
    for name, ours in (("mu", mu), ("logvar", logvar), ("reconstruction", x_hat)):
        torch.testing.assert_close(ours, expected[f"{kind}.{name}"], **close)
    assert loaded.vae.crop == "none" and loaded.epoch == {"attention": 1, "vector": 2}.get(kind, loaded.epoch)


@pytest.mark.parametrize("kind", ["vector", "spatial"])
def test_a_training_state_of_9addd0c_has_todays_names_and_order(kind):
    state, checkpoint = load_training_state(OLD / kind), load_checkpoint(OLD / kind / "vae_model_epoch_2.pth")
    assert state["model"].keys() == checkpoint.vae.state_dict().keys()
    assert state["name"] == checkpoint.run and state["run"]["settings"]["ema_decay"] == {"vector": 0.9, "spatial": 0.999}[kind]
    moments = [state["optimizer"]["state"][i]["exp_avg"].shape for i in range(len(state["optimizer"]["state"]))]
    assert moments == [weight.shape for weight in checkpoint.vae.parameters()]


# ---------------------------------------------------------------- what is refused


class Malicious:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize(
    "write", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what, 2))], ids=["torch.save", "pickle.dumps"]
)
@pytest.mark.parametrize("wrap", [lambda bad: bad, lambda bad: {"architecture": {}, "weights": {}, "epoch": bad}])
def test_code_in_a_file_is_refused_and_does_not_run(tmp_path, write, wrap):
    mark, path = tmp_path / "it ran", tmp_path / "vae_model_epoch_1.pth"
    write(wrap(Malicious(mark)), path)
    with pytest.raises(ValueError, match="was not loaded"):
        load_checkpoint(path)
    assert not mark.exists()
    with suppress(RuntimeError):
        torch.load(path, weights_only=False)  # it would have
    assert mark.exists()


@pytest.mark.parametrize(
    "content", [b"", b".", b"hello", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"h" * 60, bytes(1000)], ids=repr
)
def test_a_file_that_is_something_else_is_refused_by_name(saved, content):
    saved.write_bytes(content)
    with pytest.raises(ValueError, match=saved.name):
        load_checkpoint(saved)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_a_file_cut_short_is_refused_by_name(saved, share):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=saved.name):
        load_checkpoint(saved)


def test_a_single_byte_gone_bad_among_the_weights_is_noticed(saved):
    whole = bytearray(saved.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    saved.write_bytes(whole)
    with pytest.raises(ValueError, match=saved.name):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.pop("architecture"), "made by another program"),
        (lambda content: content["weights"].popitem(), "do not fit its architecture"),
        (lambda content: content["weights"].update(more=torch.ones(2)), 'Unexpected key.*"more"'),
        (lambda content: content["architecture"].update(latent_dim=5), "size mismatch for encoder.*linear"),
        (lambda content: content["architecture"].update(latent_dim=10**12), "do not fit its architecture"),
        (lambda content: content["architecture"].update(image_size=13), "multiple of 8"),
        (lambda content: content["architecture"].update(depth=3), "depth"),
        (lambda content: content["architecture"].update(kind="guess"), "not a kind of VAE"),
        (lambda content: content.update(architecture=None), "does not hold a VAE"),
        (lambda content: content.update(weights=[1, 2]), "does not hold a VAE"),
        (lambda content: content.update(settings=3), "does not hold a VAE"),
        (lambda content: content.update(preprocessing=3), "does not hold a VAE"),
        (lambda content: content.update(epoch="3"), "epoch is '3'"),
        (lambda content: content.update(history=[3]), "not a list of records"),
        (lambda content: content["weights"][LINEAR].view(-1)[7].fill_(torch.nan), f"NaN.*'{LINEAR}'"),
        (lambda content: content["weights"][LINEAR].view(-1)[0].fill_(-torch.inf), f"NaN.*'{LINEAR}'"),
    ],
)
def test_a_checkpoint_that_does_not_fit_what_it_names_is_refused_with_the_reason(saved, change, reason):
    content, put = content_of(saved)
    change(content)
    put(content)
    with pytest.raises(ValueError, match=reason) as raised:
        load_checkpoint(saved)
    assert saved.name in str(raised.value)


def test_a_small_file_that_claims_to_be_a_large_model_is_refused(tmp_path):
    saved = checkpoint_path(tmp_path, 3)
    save_checkpoint(saved, Checkpoint(tiny_vae(), 3, [], {}))
    content, put = content_of(saved)
    content["weights"][LINEAR] = torch.zeros(()).expand(content["weights"][LINEAR].shape)
    put(content)
    with pytest.raises(ValueError, match=f"not all in the file: '{LINEAR}'"):
        load_checkpoint(saved)


def test_trouble_with_the_disk_is_not_taken_for_damage(tmp_path, monkeypatch):
    save_checkpoint(checkpoint_path(tmp_path, 3), Checkpoint(tiny_vae()))

    def failing(*_, **__):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(torch, "load", failing)
    with pytest.raises(OSError, match="Input/output error"):
        load_checkpoint(tmp_path)


def test_weights_of_another_program_are_refused_as_such(tmp_path):
    weights = {"conv1.weight": torch.ones(3)}
    torch.save(weights, tmp_path / "resnet.pth")
    save_file(weights, tmp_path / "resnet.safetensors")
    save_file(weights, tmp_path / "step.safetensors", {"checkpoint": "step 100"})
    torch.save([1, 2], tmp_path / "list.pth")
    for name, reason in (
        ("resnet.pth", "another program"),
        ("resnet.safetensors", "another program"),
        ("step.safetensors", ""),
        ("list.pth", "a list"),
    ):
        with pytest.raises(ValueError, match=f"{name}.*{reason}"):
            load_checkpoint(tmp_path / name)


def test_a_compressed_file_which_could_grow_without_limit_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    with pytest.raises(ValueError, match="compressed"):
        load_checkpoint(tmp_path / "bomb.pth")


@settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_whatever_happens_to_a_checkpoint_it_is_loaded_as_it_was_or_refused(saved, data):
    whole = saved.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1), "place")
    kind = data.draw(st.sampled_from(["byte", "cut", "insert", "swap"]), "kind")
    junk = data.draw(st.binary(min_size=1, max_size=40), "junk")
    broken = {
        "byte": whole[:place] + junk[:1] + whole[place + 1 :],
        "cut": whole[:place],
        "insert": whole[:place] + junk + whole[place:],
        "swap": whole[:place] + junk + whole[place + len(junk) :],
    }[kind]
    path = saved.with_name(f"broken{saved.suffix}")
    path.write_bytes(broken)
    try:
        loaded = load_checkpoint(path).vae.state_dict()
    except ValueError as error:
        assert path.name in str(error)
    else:
        assert all(
            torch.equal(a, b) for a, b in zip(loaded.values(), load_checkpoint(saved).vae.state_dict().values(), strict=True)
        )


def test_a_missing_checkpoint_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="train first"):
        load_checkpoint(tmp_path / "vae_model_epoch_1.pth")
    with pytest.raises(FileNotFoundError, match="train first"):
        load_checkpoint(tmp_path)


def test_checkpoints_are_listed_by_number_in_either_format(tmp_path):
    others = ["vae_model_epoch_final.pth", "vae_model_epoch_200.pth.partial", "other.pth", "run-1/vae_model_epoch_300.pth"]
    write_files(tmp_path, [*CHECKPOINT_NAMES, *others, "vae_model_epoch_9.safetensors", "vae_model_epoch_101.safetensors"])
    listed = [path.name for path in list_checkpoints(tmp_path).values()]
    assert listed == [*CHECKPOINT_NAMES, "vae_model_epoch_101.safetensors"]


def test_a_folder_stands_for_its_newest_checkpoint_and_is_refused_where_that_is_damaged(saved):
    for epoch in (4, 10):
        shutil.copy(saved, saved.with_stem(f"vae_model_epoch_{epoch}"))
    saved.write_bytes(b"damaged")
    assert load_checkpoint(saved.parent).run == "run-1"
    saved.with_stem("vae_model_epoch_10").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"epoch_10\."):
        load_checkpoint(saved.parent)


def test_the_training_state_is_kept_once_and_comes_back(tmp_path):
    assert load_training_state(tmp_path) is None
    for epoch in (1, 2):
        save_training_state(tmp_path, {"run": {}, "name": "run-1", "epoch": epoch, "optimizer": {"step": torch.tensor(3.0)}})
    assert load_training_state(tmp_path) == {"run": {}, "name": "run-1", "epoch": 2, "optimizer": {"step": torch.tensor(3.0)}}
    assert list(tree(tmp_path)) == [STATE_FILE]


def test_moving_a_run_takes_all_of_it_and_nothing_else_and_never_overwrites(tmp_path):
    write_files(tmp_path, ["notes.txt"])
    for i in range(3):
        write_files(tmp_path, [*CHECKPOINT_NAMES, "vae_model_epoch_9.safetensors", STATE_FILE])
        (tmp_path / STATE_FILE).write_text(f"of run {i}")
        moved = archive_run(tmp_path, "run-1")
        assert set(tree(moved)) == {*CHECKPOINT_NAMES, "vae_model_epoch_9.safetensors", STATE_FILE}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "run-1", "run-1-2", "run-1-3"]
    assert [(folder / STATE_FILE).read_text() for folder in sorted(tmp_path.glob("run*"))] == [f"of run {i}" for i in range(3)]
