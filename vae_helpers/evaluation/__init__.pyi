from .baselines import (
    LinearVAE as LinearVAE,
)
from .baselines import (
    nearest_images as nearest_images,
)
from .baselines import (
    pca_error as pca_error,
)
from .baselines import (
    pca_reconstructions as pca_reconstructions,
)
from .baselines import (
    principal_components as principal_components,
)
from .evaluation import Evaluation as Evaluation
from .evaluation import evaluate as evaluate
from .features import DogFeatures as DogFeatures
from .features import load_dog_features as load_dog_features
from .features import load_inception as load_inception
from .likelihood import (
    BYTE_WIDTH as BYTE_WIDTH,
)
from .likelihood import (
    bits_per_dimension as bits_per_dimension,
)
from .likelihood import (
    elbo as elbo,
)
from .likelihood import (
    importance_weighted_bound as importance_weighted_bound,
)
from .metrics import (
    active_units as active_units,
)
from .metrics import (
    aggregate_posterior_gap as aggregate_posterior_gap,
)
from .metrics import (
    evaluate_vae as evaluate_vae,
)
from .metrics import (
    image_quality as image_quality,
)
from .metrics import (
    psnr as psnr,
)
from .probes import FactorRecovery as FactorRecovery
from .probes import recover_factors as recover_factors
from .report import reconstruction_saver as reconstruction_saver
from .report import write_report as write_report
from .sample_metrics import (
    Comparison as Comparison,
)
from .sample_metrics import (
    compare_features as compare_features,
)
from .sample_metrics import (
    extract_features as extract_features,
)
from .sample_metrics import (
    nearest_features as nearest_features,
)
from .sample_metrics import (
    sample_metrics as sample_metrics,
)
