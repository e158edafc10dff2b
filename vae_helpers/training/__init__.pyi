from .adversarial import (
    Adversary as Adversary,
    AdversaryLosses as AdversaryLosses,
    FeatureDiscriminator as FeatureDiscriminator,
    FeatureDistance as FeatureDistance,
    pixel_discriminator as pixel_discriminator,
    random_augmentation as random_augmentation,
)
from .batches import epoch_batches as epoch_batches, make_batch as make_batch, random_translate as random_translate
from .lite0 import Lite0 as Lite0
from .loop import fit as fit, make_accelerator as make_accelerator
from .optim import (
    fit_flow as fit_flow,
    learning_rate_factor as learning_rate_factor,
    optimizer_step as optimizer_step,
    update_ema as update_ema,
)
from .plan import Plan as Plan, plan_training as plan_training
from .prior import KINDS as KINDS, fit_prior as fit_prior
from .settings import TrainingSettings as TrainingSettings
from .sharpening import sharpen as sharpen
