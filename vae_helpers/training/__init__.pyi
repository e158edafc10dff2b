from .batches import epoch_batches as epoch_batches, make_batch as make_batch, random_translate as random_translate
from .flow_fitting import fit_flow as fit_flow
from .loop import fit as fit, make_accelerator as make_accelerator
from .optim import learning_rate_factor as learning_rate_factor, optimizer_step as optimizer_step, update_ema as update_ema
from .settings import TrainingSettings as TrainingSettings
