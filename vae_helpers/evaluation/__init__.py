"""What a model does on images it has not seen."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "baselines": ["LinearVAE", "nearest_images", "pca_error", "pca_reconstructions", "principal_components"],
        "evaluation": ["Evaluation", "evaluate"],
        "features": ["DogFeatures", "load_dog_features", "load_inception"],
        "likelihood": ["BYTE_WIDTH", "bits_per_dimension", "elbo", "importance_weighted_bound"],
        "metrics": ["active_units", "aggregate_posterior_gap", "evaluate_vae", "image_quality", "psnr"],
        "probes": ["FactorRecovery", "recover_factors"],
        "report": ["reconstruction_saver", "write_report"],
        "sample_metrics": ["Comparison", "compare_features", "extract_features", "nearest_features", "sample_metrics"],
    },
)
