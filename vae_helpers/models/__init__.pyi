from .attention import Attention as Attention
from .attention import AttentionVAE as AttentionVAE
from .attention import ResBlock as ResBlock
from .attention import SpatialVAE as SpatialVAE
from .checkpoint import (
    STATE_FILE as STATE_FILE,
)
from .checkpoint import (
    Checkpoint as Checkpoint,
)
from .checkpoint import (
    archive_run as archive_run,
)
from .checkpoint import (
    checkpoint_path as checkpoint_path,
)
from .checkpoint import (
    list_checkpoints as list_checkpoints,
)
from .checkpoint import (
    load_checkpoint as load_checkpoint,
)
from .checkpoint import (
    load_newest_checkpoint as load_newest_checkpoint,
)
from .checkpoint import (
    load_training_state as load_training_state,
)
from .checkpoint import (
    save_checkpoint as save_checkpoint,
)
from .checkpoint import (
    save_training_state as save_training_state,
)
from .diffusers import from_diffusers as from_diffusers
from .diffusers import to_diffusers as to_diffusers
from .flow import LatentFlow as LatentFlow
from .inference import (
    decode_latents as decode_latents,
)
from .inference import (
    encode_images as encode_images,
)
from .inference import (
    to_float as to_float,
)
from .inference import (
    to_uint8 as to_uint8,
)
from .layers import GroupNorm as GroupNorm
from .layers import Residual as Residual
from .layers import upsample as upsample
from .layers import use_bfloat16 as use_bfloat16
from .losses import (
    BETA as BETA,
)
from .losses import (
    VAELoss as VAELoss,
)
from .losses import (
    calibrated_beta as calibrated_beta,
)
from .losses import (
    free_bits_kl as free_bits_kl,
)
from .losses import (
    kl_divergence as kl_divergence,
)
from .losses import (
    kl_per_dim as kl_per_dim,
)
from .losses import (
    kl_weight as kl_weight,
)
from .losses import (
    noise_variance as noise_variance,
)
from .losses import (
    vae_loss as vae_loss,
)
from .pretrained import load_pretrained as load_pretrained
from .pretrained import load_prior as load_prior
from .priors import (
    FullGaussian as FullGaussian,
)
from .priors import (
    GaussianMixture as GaussianMixture,
)
from .priors import (
    Prior as Prior,
)
from .priors import (
    StandardNormal as StandardNormal,
)
from .vae import (
    LOGVAR_RANGE as LOGVAR_RANGE,
)
from .vae import (
    VAE as VAE,
)
from .vae import (
    BaseVAE as BaseVAE,
)
from .vae import (
    Decoder as Decoder,
)
from .vae import (
    Encoder as Encoder,
)
from .vae import (
    VAEOutput as VAEOutput,
)
from .vae import (
    reparameterize as reparameterize,
)
