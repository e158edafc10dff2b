"""One VAE for each objective, on toy dogs, measured on test dogs: writes beta_sweep.csv for 07.

python notebooks/beta_sweep.py    part of `make series`; eleven times the training of notebook 03
"""

import csv
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from vae_helpers.config import crop_wanted, dogs_wanted, folders, full_or_smoke
from vae_helpers.data import DogImages, ensure_split, load_images, split_validation
from vae_helpers.evaluation import (
    LinearVAE,
    evaluate_vae,
    extract_features,
    load_dog_features,
    principal_components,
    recover_factors,
    sample_metrics,
)
from vae_helpers.files import atomic_write
from vae_helpers.latent import dog_attributes
from vae_helpers.models import (
    BETA,
    VAE,
    Checkpoint,
    decode_latents,
    encode_images,
    load_checkpoint,
    save_checkpoint,
    to_uint8,
)
from vae_helpers.training import TrainingSettings, fit

TABLE = Path(__file__).with_name("beta_sweep.csv")
OBJECTIVES = {f"beta {BETA * 4.0**k:.2g}": {"beta": BETA * 4.0**k} for k in range(3, -5, -1)}
OBJECTIVES |= {
    "calibrated": {"calibrated": True},
    "warm-up": {"kl_warmup": 0.5},
    "free bits": {"free_bits": 0.1},
}
LINEAR = [BETA * 4.0**k for k in range(3, -6, -1)]  # beta of probabilistic PCA


def figures(vae, test: DogImages, labels: dict[str, torch.Tensor], beta: float) -> dict[str, float]:
    """One row: rate and distortion, latents in use, factors recovered, how good samples are."""
    held_out = evaluate_vae(vae, test.pixels, beta)
    mu, _ = encode_images(vae, test.pixels)
    recovery = recover_factors(mu, labels)
    z = torch.randn(len(test), *vae.latent_shape, generator=torch.Generator().manual_seed(0))
    network, new = load_dog_features(), to_uint8(decode_latents(vae, z))
    samples = sample_metrics(
        generated=extract_features(network, new), real=extract_features(network, test.pixels)
    )
    return {
        "beta": beta,
        "kl": held_out.kl,
        "recon_sampled": held_out.recon_sampled,
        "recon_mean": held_out.recon_mean,
        "active_units": held_out.active_units,
        "linear_r2": recovery.linear.mean(),
        "nonlinear_r2": recovery.nonlinear.mean(),
        "samples_frechet": samples.generated.frechet,
        "real_vs_real_frechet": samples.real_vs_real.frechet,
        "samples_coverage": samples.generated.coverage,
    }


def trained(
    name: str, objective: dict, learn: torch.Tensor, validation: torch.Tensor
) -> Checkpoint:
    """The model of one objective; kept, so that an interrupted sweep goes on where it was."""
    kept = folders().checkpoints / "beta_sweep" / f"{name.replace(' ', '_')}.pth"
    if not kept.exists():
        epochs = full_or_smoke(25, 1)
        settings = TrainingSettings(epochs=epochs, ema_decay=0.0, **objective)
        torch.manual_seed(settings.seed)
        vae = VAE()
        history = fit(vae, learn, validation, settings)
        save_checkpoint(kept, Checkpoint(vae, settings.epochs, history, asdict(settings)))
    return load_checkpoint(kept)


def main(table: Path = TABLE, objectives: dict[str, dict] = OBJECTIVES, betas=LINEAR) -> None:
    """Train and measure a VAE for each objective, a linear one for each beta, for `table`."""
    where = folders()
    ensure_split(where, dogs_wanted(), crop_wanted(), full_or_smoke(4096, 96))
    learn, validation = split_validation(load_images(where.train, cache_dir=where.cache))
    test = load_images(where.test, cache_dir=where.cache)
    labels = dog_attributes(test, where.toy_dogs)
    rows = []
    for name, objective in objectives.items():
        saved = trained(name, objective, learn.pixels, validation.pixels)
        rows.append({"model": name} | figures(saved.vae, test, labels, saved.beta))
        print(rows[-1], flush=True)
    components = principal_components(learn.pixels, VAE().latent_shape[0])
    for beta in betas:
        vae = LinearVAE(components, beta)
        rows.append({"model": "probabilistic PCA"} | figures(vae, test, labels, beta))
        print(rows[-1], flush=True)
    write_table(rows, table)


def write_table(rows: list[dict], table: Path) -> None:
    with atomic_write(table) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: v if isinstance(v, str) else float(f"{v:.5g}") for k, v in row.items()}
            )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
