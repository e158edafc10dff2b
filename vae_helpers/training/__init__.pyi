from .batches import (
    epoch_batches as epoch_batches,
)
from .batches import (
    make_batch as make_batch,
)
from .batches import (
    random_translate as random_translate,
)
from .batches import (
    to_device_if_fits as to_device_if_fits,
)
from .flow_fitting import fit_flow as fit_flow
from .loop import fit as fit
from .loop import make_accelerator as make_accelerator
from .optim import learning_rate_factor as learning_rate_factor
from .optim import optimizer_step as optimizer_step
from .optim import update_ema as update_ema
from .settings import TrainingSettings as TrainingSettings
