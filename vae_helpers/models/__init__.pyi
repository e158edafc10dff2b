from .attention import Attention as Attention, AttentionVAE as AttentionVAE, SpatialVAE as SpatialVAE
from .checkpoint import (
    STATE_FILE as STATE_FILE,
    Checkpoint as Checkpoint,
    archive_run as archive_run,
    checkpoint_path as checkpoint_path,
    list_checkpoints as list_checkpoints,
    load_checkpoint as load_checkpoint,
    load_training_state as load_training_state,
    save_checkpoint as save_checkpoint,
    save_training_state as save_training_state,
)
from .flow import LatentFlow as LatentFlow
from .inference import (
    decode_latents as decode_latents,
    encode_images as encode_images,
    to_float as to_float,
    to_uint8 as to_uint8,
)
from .layers import (
    GroupNorm as GroupNorm,
    ResBlock as ResBlock,
    Residual as Residual,
    upsample as upsample,
    use_bfloat16 as use_bfloat16,
)
from .losses import (
    BETA as BETA,
    VAELoss as VAELoss,
    calibrated_beta as calibrated_beta,
    free_bits_kl as free_bits_kl,
    kl_divergence as kl_divergence,
    kl_per_dim as kl_per_dim,
    kl_weight as kl_weight,
    noise_variance as noise_variance,
    vae_loss as vae_loss,
)
from .pretrained import (
    belongs_to as belongs_to,
    digest as digest,
    find_weights as find_weights,
    from_diffusers as from_diffusers,
    load_decoder as load_decoder,
    load_pretrained as load_pretrained,
    load_prior as load_prior,
    part_path as part_path,
    save_decoder as save_decoder,
    to_diffusers as to_diffusers,
)
from .priors import (
    FullGaussian as FullGaussian,
    GaussianMixture as GaussianMixture,
    Prior as Prior,
    StandardNormal as StandardNormal,
)
from .residual import ResidualVAE as ResidualVAE
from .vae import (
    LOGVAR_RANGE as LOGVAR_RANGE,
    VAE as VAE,
    BaseVAE as BaseVAE,
    Decoder as Decoder,
    Encoder as Encoder,
    VAEOutput as VAEOutput,
    reparameterize as reparameterize,
)
