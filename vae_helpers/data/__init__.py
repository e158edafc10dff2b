"""From photos on disk to uint8 tensors; knows no VAE."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "breeds": ["breeds_of"],
        "crops": ["BOXES", "Box", "Crop", "read_boxes", "square_around"],
        "duplicates": ["Pair", "find_duplicates", "group_duplicates"],
        "folders": ["MANIFEST", "find_images", "read_manifest"],
        "images": ["DogImages", "decode_image", "load_images", "split_validation"],
        "photos": ["COLLECTIONS", "ensure_split", "fetch_photos", "resolve_source", "unpack"],
        "split": ["split_dataset"],
        "toy_dogs": ["CATEGORICAL", "CONTINUOUS", "FACTORS", "draw_dog", "read_factors", "sample_factors", "write_toy_dogs"],
    },
)
