"""Pictures made ready inside the graph, so that what is trained is what is deployed; and varied in training."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Real
from torch import Tensor, nn

from atinuke.plugins.settings import require_positive

AREA = (0.02, 1 / 3)  # of the picture, and
RATIO = (0.3, 1 / 0.3)  # of height to width: the rectangles of Zhong et al.


class Normalise(nn.Module):
    """(x - mean) / std, with one number for all channels or one for each.

    Pixels that are whole numbers are 0..255 and are divided by 255 first; floats are taken as they are (by custom they
    are 0..1). The default takes 0..1 to -1..1, as for the published ViTs; ImageNet's own numbers are mean
    [0.485, 0.456, 0.406] and std [0.229, 0.224, 0.225].
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, channels: int = 3, mean: float | list[float] = 0.5, std: float | list[float] = 0.5) -> None:
        super().__init__()
        require_positive(channels=channels)
        self.channels = channels
        self.mean = mean
        self.std = std
        for name, buffer, given in (("mean", "centre", mean), ("std", "spread", std)):
            values = given if isinstance(given, list) else [given] * channels
            if len(values) != channels:
                raise ValueError(f"{name} has {len(values)} numbers for {channels} channels")
            if name == "std":
                require_positive(std=min(values))
            self.register_buffer(buffer, torch.tensor(values, dtype=torch.get_default_dtype())[:, None, None])

    def forward(
        self, pixel_values: Real[Tensor, "batch {self.channels} height width"]
    ) -> Float[Tensor, "batch {self.channels} height width"]:
        if not pixel_values.is_floating_point():
            pixel_values = pixel_values.to(self.centre.dtype) / 255
        return (pixel_values - self.centre) / self.spread


class Resize(nn.Module):
    """Pictures of any size to one size: bilinear, and averaged over what falls together where they shrink (antialias),
    as Pillow does it."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        require_positive(height=height, width=width)
        self.height = height
        self.width = width

    def forward(
        self, pixel_values: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels {self.height} {self.width}"]:
        precise = pixel_values.to(torch.promote_types(pixel_values.dtype, torch.float32))  # torch knows no other here
        resized = F.interpolate(precise, (self.height, self.width), mode="bilinear", antialias=True)
        return resized.to(pixel_values.dtype)


class Augment(nn.Module):
    """Varies each picture by itself while training, and passes it on unchanged otherwise: mirrored left to right with
    probability `flip`; moved by up to `shift` pixels along each axis (a random crop of the padded picture, He et al.,
    2016); and with probability `erase` a rectangle of 2 % to 33 % of it erased (Zhong et al., 2020).

    What comes in from outside and what is erased is 0, the middle of the values behind vision.normalise.
    """

    def __init__(self, flip: float = 0.5, shift: int = 4, erase: float = 0.0) -> None:
        super().__init__()
        for name, share in (("flip", flip), ("erase", erase)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be from 0 to 1, but is {share}")
        if shift < 0:
            raise ValueError(f"shift must be at least 0, but is {shift}")
        self.flip = flip
        self.shift = shift
        self.erase = erase

    def forward(
        self, pixel_values: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        if not self.training:
            return pixel_values
        if self.flip:
            pixel_values = torch.where(_chosen(self.flip, pixel_values), pixel_values.flip(-1), pixel_values)
        if self.shift:
            pixel_values = self._moved(self._moved(pixel_values, 2), 3)
        if self.erase:
            erased = _chosen(self.erase, pixel_values) & _rectangles(pixel_values)
            pixel_values = pixel_values.masked_fill(erased, 0.0)
        return pixel_values

    def _moved(self, x: Tensor, axis: int) -> Tensor:
        """Each picture moved along an axis by its own number of pixels."""
        size = x.shape[axis]
        by = torch.randint(-self.shift, self.shift + 1, (x.shape[0], 1, 1, 1), device=x.device)
        source = _places(x, axis) + by
        moved = x.gather(axis, source.clamp(0, size - 1).expand_as(x))
        return moved.masked_fill((source < 0) | (source >= size), 0.0)


def _chosen(share: float, x: Tensor) -> Tensor:
    """Some of the pictures: true with a probability, for each by itself."""
    return torch.rand(x.shape[0], 1, 1, 1, device=x.device) < share


def _places(x: Tensor, axis: int) -> Tensor:
    """0, 1, 2 ... along an axis."""
    return torch.arange(x.shape[axis], device=x.device).view([-1 if i == axis else 1 for i in range(x.dim())])


def _rectangles(x: Tensor) -> Tensor:
    """True inside a rectangle of each picture, whose area and shape are drawn evenly, the latter by its logarithm."""
    share, shape, down, along = torch.rand(4, x.shape[0], 1, 1, 1, device=x.device)
    area = (AREA[0] + share * (AREA[1] - AREA[0])) * (x.shape[2] * x.shape[3])
    ratio = torch.exp(math.log(RATIO[0]) + shape * math.log(RATIO[1] / RATIO[0]))
    inside = torch.ones_like(share, dtype=torch.bool)
    for axis, length, place in ((2, (area * ratio).sqrt(), down), (3, (area / ratio).sqrt(), along)):
        length = length.round().clamp(1, x.shape[axis])
        start = (place * (x.shape[axis] - length + 1)).floor()
        inside = inside & (_places(x, axis) >= start) & (_places(x, axis) < start + length)
    return inside
