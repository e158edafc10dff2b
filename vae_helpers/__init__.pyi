from .data import load_images as load_images
from .data import split_dataset as split_dataset
from .evaluation import evaluate as evaluate
from .latent import LatentExplorer as LatentExplorer
from .models import (
    VAE as VAE,
)
from .models import (
    Decoder as Decoder,
)
from .models import (
    Encoder as Encoder,
)
from .models import (
    load_checkpoint as load_checkpoint,
)
from .models import (
    load_pretrained as load_pretrained,
)
from .models import (
    load_prior as load_prior,
)
from .models import (
    vae_loss as vae_loss,
)
from .training import TrainingSettings as TrainingSettings
from .training import fit as fit
