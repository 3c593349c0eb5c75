"""Sound into vectors, from log-mel frames or from the waveform itself."""

from typing import ClassVar, NamedTuple

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from atinuke.plugins.linear import Linear
from atinuke.plugins.masks import by_place, full_mask, require_length
from atinuke.plugins.settings import require_positive

# Of wav2vec 2.0's seven convolutions. Together they see 400 samples and move on by 320.
KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)
FIELD = 400
HOP = 320


class AudioFramesOutput(NamedTuple):
    output: Float[Tensor, "batch (frames-1)//{self.stride}+1 {self.d_model}"]
    mask: Bool[Tensor, "batch (frames-1)//{self.stride}+1"]


class AudioFrames(nn.Module):
    """Two convolutions over three frames each, with GELU, the second with `stride` (Whisper: Radford et al., 2022).

    Beyond both ends stand zeros, and what the mask hides is zero before either convolution. Output t is centred on
    frame t * stride and counts where that frame does.
    """

    def __init__(self, mels: int, d_model: int, stride: int = 2) -> None:
        super().__init__()
        require_positive(mels=mels, d_model=d_model)
        if not 1 <= stride <= 3:
            raise ValueError(f"stride must be 1 to 3, or frames would be left out, but is {stride}")
        self.mels = mels
        self.d_model = d_model
        self.stride = stride
        self.conv1 = nn.Conv1d(mels, d_model, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(d_model, d_model, kernel_size=3, stride=stride, padding=1)

    def forward(
        self,
        input_features: Float[Tensor, "batch frames {self.mels}"],
        mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> AudioFramesOutput:
        mask = full_mask(input_features) if mask is None else mask
        hidden = ~mask[:, None]
        x = input_features.transpose(1, 2).masked_fill(hidden, 0)
        x = F.gelu(self.conv1(x)).masked_fill(hidden, 0)
        return AudioFramesOutput(by_place(F.gelu(self.conv2(x))), mask[:, :: self.stride].contiguous())


class AudioPad(nn.Module):
    """A recording, or the frames of one, with zeros behind it up to `length`: what models read that know no mask, such
    as Whisper (30 s of samples) and AST (1,024 frames). What the mask hides is such a zero too.

    Raises ValueError for more than `length`.
    """

    limits: ClassVar[dict[str, str]] = {"frames": "length"}

    def __init__(self, length: int) -> None:
        super().__init__()
        require_positive(length=length)
        self.length = length

    def forward(
        self, x: Float[Tensor, "batch frames *features"], mask: Bool[Tensor, "batch frames"] | None = None
    ) -> Float[Tensor, "batch {self.length} *features"]:
        if x.shape[1] > self.length:
            raise ValueError(f"at most {self.length} frames fit, but there are {x.shape[1]}")
        if mask is not None:
            x = x.masked_fill(~mask.view(*mask.shape, *[1] * (x.dim() - 2)), 0)
        return F.pad(x, (*[0, 0] * (x.dim() - 2), 0, self.length - x.shape[1]))


class AudioPatchesOutput(NamedTuple):
    """`grid` has rows of bands and columns of times, as a picture has, and as AST counts patches."""

    output: Float[
        Tensor,
        "batch ((frames-{self.patch})//{self.stride}+1)*(({self.mels}-{self.patch})//{self.stride}+1) {self.d_model}",
    ]
    grid: Float[
        Tensor,
        "batch ({self.mels}-{self.patch})//{self.stride}+1 (frames-{self.patch})//{self.stride}+1 {self.d_model}",
    ]
    mask: Bool[Tensor, "batch ((frames-{self.patch})//{self.stride}+1)*(({self.mels}-{self.patch})//{self.stride}+1)"]


class AudioPatches(nn.Module):
    """Square patches of a spectrogram, `stride` apart in time and frequency, each projected to `d_model` (AST: Gong et
    al., 2021; there 16 and 10, so that patches overlap).

    Patches come in the order of time, and within one time from low to high mels: what is longer goes on at the end.
    (AST itself counts the other way round, all times of the lowest mels first, as the grid does.) A patch counts where
    its last frame does.

    Raises ValueError for fewer frames than a patch has.
    """

    def __init__(self, mels: int, d_model: int, patch: int = 16, stride: int = 10) -> None:
        super().__init__()
        require_positive(d_model=d_model, patch=patch, stride=stride)
        if mels < patch:
            raise ValueError(f"mels {mels} are fewer than a patch of {patch} has")
        if stride > patch:
            raise ValueError(f"stride {stride} is above patch {patch}: frames would be left out")
        self.mels = mels
        self.d_model = d_model
        self.patch = patch
        self.stride = stride
        self.projection = nn.Conv2d(1, d_model, kernel_size=patch, stride=stride)

    def forward(
        self,
        input_features: Float[Tensor, "batch frames {self.mels}"],
        mask: Bool[Tensor, "batch frames"] | None = None,
    ) -> AudioPatchesOutput:
        require_length(input_features.shape[1], self.patch, "frames")
        mask = full_mask(input_features) if mask is None else mask
        patches = self.projection(input_features.masked_fill(~mask[..., None], 0)[:, None])
        grid = patches.permute(0, 3, 2, 1)
        bands = (self.mels - self.patch) // self.stride + 1
        times = mask[:, self.patch - 1 :: self.stride].contiguous()
        return AudioPatchesOutput(by_place(patches.flatten(2)), grid, times[..., None].expand(-1, -1, bands).flatten(1))


class AudioWaveformOutput(NamedTuple):
    output: Float[Tensor, "batch (samples-400)//320+1 {self.d_model}"]
    mask: Bool[Tensor, "batch (samples-400)//320+1"]


class AudioWaveform(nn.Module):
    """Seven strided convolutions of `channels` over the waveform itself, each with layer normalisation and GELU, then
    layer normalisation and a linear map to `d_model` (wav2vec 2.0, large: Baevski et al., 2020).

    A vector sees 400 samples and the next one starts 320 later: 25 ms and 20 ms at 16 kHz. It counts where its last
    sample does. The waveform should have mean 0 and variance 1 (audio.normalise).

    Raises ValueError for fewer than 400 samples.
    """

    def __init__(self, d_model: int, channels: int = 512) -> None:
        super().__init__()
        require_positive(d_model=d_model, channels=channels)
        self.d_model = d_model
        self.channels = channels
        sources = (1, *[channels] * (len(KERNELS) - 1))
        shapes = zip(sources, KERNELS, STRIDES, strict=True)
        self.convolutions = nn.ModuleList(nn.Conv1d(source, channels, size, stride) for source, size, stride in shapes)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in KERNELS)
        self.norm = nn.LayerNorm(channels)
        self.projection = Linear(channels, d_model)

    def forward(
        self, input_values: Float[Tensor, "batch samples"], mask: Bool[Tensor, "batch samples"] | None = None
    ) -> AudioWaveformOutput:
        require_length(input_values.shape[1], FIELD, "samples")
        mask = full_mask(input_values) if mask is None else mask
        seen = (input_values.shape[1] - FIELD) // HOP * HOP + FIELD  # what is beyond is in no vector
        x = input_values.masked_fill(~mask, 0)[:, :seen, None]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.gelu(norm(by_place(convolution(x.transpose(1, 2)))))
        return AudioWaveformOutput(self.projection(self.norm(x)), mask[:, FIELD - 1 :: HOP].contiguous())
