from .breeds import breeds_of as breeds_of
from .crops import BOXES as BOXES
from .crops import Box as Box
from .crops import Crop as Crop
from .crops import read_boxes as read_boxes
from .crops import square_around as square_around
from .duplicates import Pair as Pair
from .duplicates import find_duplicates as find_duplicates
from .duplicates import group_duplicates as group_duplicates
from .folders import MANIFEST as MANIFEST
from .folders import find_images as find_images
from .folders import read_manifest as read_manifest
from .images import (
    DogImages as DogImages,
)
from .images import (
    decode_image as decode_image,
)
from .images import (
    load_images as load_images,
)
from .images import (
    split_validation as split_validation,
)
from .photos import (
    COLLECTIONS as COLLECTIONS,
)
from .photos import (
    ensure_split as ensure_split,
)
from .photos import (
    fetch_photos as fetch_photos,
)
from .photos import (
    resolve_source as resolve_source,
)
from .photos import (
    unpack as unpack,
)
from .split import split_dataset as split_dataset
from .toy_dogs import (
    CATEGORICAL as CATEGORICAL,
)
from .toy_dogs import (
    CONTINUOUS as CONTINUOUS,
)
from .toy_dogs import (
    FACTORS as FACTORS,
)
from .toy_dogs import (
    draw_dog as draw_dog,
)
from .toy_dogs import (
    read_factors as read_factors,
)
from .toy_dogs import (
    sample_factors as sample_factors,
)
from .toy_dogs import (
    write_toy_dogs as write_toy_dogs,
)
