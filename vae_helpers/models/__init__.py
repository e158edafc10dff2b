"""Networks, losses, priors: what a VAE is."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "attention": ["Attention", "AttentionVAE", "ResBlock", "SpatialVAE"],
        "checkpoint": [
            "Checkpoint",
            "STATE_FILE",
            "archive_run",
            "checkpoint_path",
            "list_checkpoints",
            "load_checkpoint",
            "load_newest_checkpoint",
            "load_training_state",
            "save_checkpoint",
            "save_training_state",
        ],
        "diffusers": ["from_diffusers", "to_diffusers"],
        "flow": ["LatentFlow"],
        "inference": ["decode_latents", "encode_images", "to_float", "to_uint8"],
        "layers": ["GroupNorm", "Residual", "upsample", "use_bfloat16"],
        "losses": [
            "BETA",
            "VAELoss",
            "calibrated_beta",
            "free_bits_kl",
            "kl_divergence",
            "kl_per_dim",
            "kl_weight",
            "noise_variance",
            "vae_loss",
        ],
        "pretrained": ["load_pretrained", "load_prior"],
        "priors": ["FullGaussian", "GaussianMixture", "Prior", "StandardNormal"],
        "vae": ["BaseVAE", "Decoder", "Encoder", "LOGVAR_RANGE", "VAE", "VAEOutput", "reparameterize"],
    },
)
