from .baselines import (
    LinearVAE as LinearVAE,
    nearest_images as nearest_images,
    principal_components as principal_components,
)
from .evaluation import (
    Evaluation as Evaluation,
    evaluate as evaluate,
    reconstruction_saver as reconstruction_saver,
    write_report as write_report,
)
from .metrics import (
    BYTE_WIDTH as BYTE_WIDTH,
    active_units as active_units,
    aggregate_posterior_gap as aggregate_posterior_gap,
    bits_per_dimension as bits_per_dimension,
    elbo as elbo,
    evaluate_vae as evaluate_vae,
    image_quality as image_quality,
    importance_weighted_bound as importance_weighted_bound,
    psnr as psnr,
)
from .probes import FactorRecovery as FactorRecovery, recover_factors as recover_factors
from .sample_metrics import (
    Comparison as Comparison,
    DogFeatures as DogFeatures,
    compare_features as compare_features,
    extract_features as extract_features,
    load_dog_features as load_dog_features,
    nearest_features as nearest_features,
    sample_metrics as sample_metrics,
)
