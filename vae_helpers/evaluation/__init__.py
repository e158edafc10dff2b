"""What a model does on images it has not seen."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "disentanglement": ["FactorRecovery", "dci", "mutual_information_gap", "recover_factors"],
        "evaluation": ["evaluate_model"],
        "features": ["DogFeatures", "SHIPPED", "SHIPPED_SHA256", "load_dog_features"],
        "likelihood": ["BYTE_WIDTH", "LinearVAE", "bits_per_dimension", "elbo", "importance_weighted_bound"],
        "metrics": [
            "USED_KL",
            "active_units",
            "aggregate_posterior_gap",
            "evaluate_vae",
            "image_quality",
            "nearest_images",
            "pca_error",
            "pca_reconstructions",
            "ppca_figures",
            "principal_components",
            "psnr",
            "webp",
        ],
        "report": ["reconstruction_saver", "write_report"],
        "sample_metrics": [
            "Comparison",
            "NearestTraining",
            "compare_features",
            "extract_features",
            "nearest_training",
            "sample_metrics",
        ],
    },
)
