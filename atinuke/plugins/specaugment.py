"""Augmentation of spectrograms in training."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class SpecAugment(nn.Module):
    """Hides stripes of a spectrogram while training (Park et al., 2019), others in every row; time warping is left out.

    `frequency_masks` stripes of 0 to `frequency_width` mels and `time_masks` stripes of 0 to `time_width` frames, but
    none of more than `time_share` of the row's frames that count, each width and each place as likely as any other.
    What is hidden becomes 0, which is the mean behind audio.normalise. The defaults are the paper's policy LD. Rows are
    padded on the right.
    """

    def __init__(
        self,
        frequency_masks: int = 2,
        frequency_width: int = 27,
        time_masks: int = 2,
        time_width: int = 100,
        time_share: float = 1.0,
    ) -> None:
        super().__init__()
        counts = {"frequency_masks": frequency_masks, "time_masks": time_masks}
        for name, value in {**counts, "frequency_width": frequency_width, "time_width": time_width}.items():
            if value < 0:
                raise ValueError(f"{name} must be at least 0, but is {value}")
        if not 0 <= time_share <= 1:
            raise ValueError(f"time_share must be 0 to 1, but is {time_share}")
        self.frequency_masks = frequency_masks
        self.frequency_width = frequency_width
        self.time_masks = time_masks
        self.time_width = time_width
        self.time_share = time_share

    def forward(
        self, x: Float[Tensor, "batch frames mels"], mask: Bool[Tensor, "batch frames"] | None = None
    ) -> Float[Tensor, "batch frames mels"]:
        if not self.training:
            return x
        batch, frames, mels = x.shape
        length = torch.full((batch,), frames, device=x.device) if mask is None else mask.sum(1)
        widest = (length * self.time_share).floor().clamp(max=self.time_width)
        hidden_frames = stripes(frames, length, widest, self.time_masks)
        every = torch.full((batch,), mels, device=x.device)
        hidden_mels = stripes(mels, every, every.clamp(max=self.frequency_width), self.frequency_masks)
        return x.masked_fill(hidden_frames[:, :, None] | hidden_mels[:, None], 0)


def stripes(size: int, length: Tensor, widest: Tensor, count: int) -> Tensor:
    """Which of `size` places are within any of `count` stripes of 0 to `widest[batch]` places, all of them among the
    first `length[batch]`: `[batch, size]`."""
    chance = torch.rand(2, length.shape[0], count, device=length.device)
    width = (chance[0] * (widest[:, None] + 1)).floor()
    first = (chance[1] * (length[:, None] - width + 1)).floor()
    place = torch.arange(size, device=length.device)[:, None]
    return ((place >= first[:, None]) & (place < (first + width)[:, None])).any(-1)
