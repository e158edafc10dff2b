from .attributes import dog_attributes as dog_attributes, head_measures as head_measures
from .directions import (
    Directions as Directions,
    attribute_directions as attribute_directions,
    dimensions_by_kl as dimensions_by_kl,
    lerp as lerp,
    principal_axes as principal_axes,
    slerp as slerp,
)
from .explorer import LatentExplorer as LatentExplorer
from .export import export_explorer as export_explorer
from .walks import png_bytes as png_bytes, save_gif as save_gif, save_pngs as save_pngs, walk as walk
