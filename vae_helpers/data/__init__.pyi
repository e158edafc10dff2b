from .breeds import breeds_of as breeds_of
from .decode import decode_image as decode_image
from .duplicates import Pair as Pair, find_duplicates as find_duplicates, group_duplicates as group_duplicates
from .folders import MANIFEST as MANIFEST, find_images as find_images, read_manifest as read_manifest
from .heads import (
    BOXES as BOXES,
    CELLS as CELLS,
    INPUT as INPUT,
    Box as Box,
    Crop as Crop,
    Head as Head,
    HeadFinder as HeadFinder,
    NoHead as NoHead,
    find_head as find_head,
    read_boxes as read_boxes,
    square_around as square_around,
)
from .images import DogImages as DogImages, load_images as load_images, split_validation as split_validation
from .photos import (
    COLLECTIONS as COLLECTIONS,
    LEAST as LEAST,
    ensure_split as ensure_split,
    fetch_photos as fetch_photos,
    resolve_source as resolve_source,
    unpack as unpack,
)
from .split import split_dataset as split_dataset
from .toy_dogs import (
    CATEGORICAL as CATEGORICAL,
    CONTINUOUS as CONTINUOUS,
    FACTORS as FACTORS,
    draw_dog as draw_dog,
    read_factors as read_factors,
    sample_factors as sample_factors,
    write_toy_dogs as write_toy_dogs,
)
