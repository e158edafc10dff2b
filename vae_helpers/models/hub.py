"""VAEs in the layout of the Hugging Face hub: model.safetensors, config.json, and a model card."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin, snapshot_download
from torch import Tensor

from ..files import load_weights, write_file

CARD = """---
{{ card_data }}
---

# A variational autoencoder

It was saved by vae_helpers, whose `load_pretrained` with this repository's name, or its folder, gives it back.

- **Trained on:** {{ data | default("its owner does not say.") }}
- **Licence of these data:** {{ data_license | default("its owner does not say. Ask before you use these weights.") }}
- **Recipe:** {{ recipe | default("its owner does not say.") }}
- **Figures:** {{ figures | default("its owner does not say.") }}
"""


class HubMixin(PyTorchModelHubMixin, library_name="vae_helpers", model_card_template=CARD, tags=["vae"]):
    """`save_pretrained(folder)` and `push_to_hub("owner/name")` for every VAE.

    What the card is to say comes with `model_card_kwargs`, a dictionary: data, data_license, recipe and figures, each a text.
    A folder that has a card already keeps it.
    """

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        write_file(save_directory / "config.json", json.dumps(self.architecture | {"crop": self.crop}, indent=1))


def is_hub_folder(path: Path) -> bool:
    """Whether `path` is a folder that `save_pretrained` wrote."""
    return (path / "model.safetensors").is_file() and (path / "config.json").is_file()


def read_hub_folder(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_pretrained` wrote: weights, and architecture and preprocessing. Raises ValueError where it is damaged."""
    try:
        config = dict(json.loads((path / "config.json").read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{str(path / 'config.json')!r} is damaged: {error}") from None
    crop = config.pop("crop", "none")
    return load_weights(path / "model.safetensors")[0], {"architecture": config, "preprocessing": {"crop": crop}}


def download(name: str) -> Path:
    """A folder with the weights that the hub has under `owner/name`. Raises OSError where it has none, or cannot be reached."""
    return Path(snapshot_download(name, allow_patterns=["config.json", "*.safetensors"]))
