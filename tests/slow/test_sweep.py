import csv
from itertools import pairwise
from pathlib import Path

import beta_sweep
import pytest


def rows_of(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, quoting=csv.QUOTE_NONNUMERIC))


def test_the_committed_table_is_of_the_objectives_that_the_sweep_trains():
    rows = rows_of(beta_sweep.TABLE)
    linear = ["probabilistic PCA"] * len(beta_sweep.LINEAR)
    assert [row["model"] for row in rows] == [*beta_sweep.OBJECTIVES, *linear]
    betas = [row["beta"] for row in rows if row["model"] == "probabilistic PCA"]
    assert betas == pytest.approx(beta_sweep.LINEAR, rel=1e-4)


def test_the_committed_table_trades_nats_for_error_all_along_both_curves():
    rows = rows_of(beta_sweep.TABLE)
    for name in ("beta", "probabilistic PCA"):
        curve = sorted((row["beta"], row["kl"], row["recon_sampled"]) for row in rows if row["model"].startswith(name))
        assert len(curve) >= 8
        for (_, more_kl, less_error), (_, less_kl, more_error) in pairwise(curve):
            assert more_kl > less_kl and less_error < more_error


@pytest.mark.slow
def test_a_sweep_in_smoke_mode_writes_the_same_table_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VAE_HOME", str(tmp_path))
    objectives = {name: beta_sweep.OBJECTIVES[name] for name in ("calibrated", "warm-up")}
    beta_sweep.main(tmp_path / "first.csv", objectives, beta_sweep.LINEAR[3:5])
    assert capsys.readouterr().out.count("epoch  1/1") == 2
    found = rows_of(tmp_path / "first.csv")
    assert [row["model"] for row in found] == [*objectives, *["probabilistic PCA"] * 2]
    assert list(found[0]) == list(rows_of(beta_sweep.TABLE)[0])
    beta_sweep.main(tmp_path / "again.csv", objectives, beta_sweep.LINEAR[3:5])
    assert "epoch" not in capsys.readouterr().out
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "first.csv").read_bytes()
