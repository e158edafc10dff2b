from .attributes import dog_attributes as dog_attributes
from .directions import (
    Directions as Directions,
)
from .directions import (
    attribute_directions as attribute_directions,
)
from .directions import (
    dimensions_by_kl as dimensions_by_kl,
)
from .directions import (
    lerp as lerp,
)
from .directions import (
    principal_axes as principal_axes,
)
from .directions import (
    slerp as slerp,
)
from .explorer import LatentExplorer as LatentExplorer
from .walks import png_bytes as png_bytes
from .walks import save_filmstrip as save_filmstrip
from .walks import save_gif as save_gif
from .walks import walk as walk
