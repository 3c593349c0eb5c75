"""Waveforms into log-mel spectrograms, inside the graph: what is trained is what is deployed.

The Fourier transform of every window is a convolution with its cosines and sines, which every compiler and exporter
knows. Everything is computed in float32 at least, under autocast too: in half precision rounding noise would cover
what is 50 dB below the loudest tone.
"""

import contextlib
import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from atinuke.plugins.masks import by_place, full_mask, require_length
from atinuke.plugins.settings import require_positive

WHISPER_FLOOR = 1e-10  # power; the quietest that is told from silence
KALDI_FLOOR = 1.1920928955078125e-07  # the spacing of float32 at 1
PREEMPHASIS = 0.97
LOWEST = 20.0  # Hz, where Kaldi's filters start


class LogMelOutput(NamedTuple):
    output: Float[Tensor, "batch samples//({self.rate}//100) {self.mels}"]
    mask: Bool[Tensor, "batch samples//({self.rate}//100)"]


class LogMel(nn.Module):
    """Whisper's log-mel spectrogram (Radford et al., 2022) of a waveform in -1..1 at `rate` Hz.

    Hann windows of 25 ms (rate//40 samples) every 10 ms (rate//100), the first centred on the first sample; both ends
    reflected; power; `mels` filters on Slaney's scale from 0 Hz to half the rate, each of area 1; log10, at least 8
    below the row's largest value; (x + 4) / 4. As in Whisper the last window is left out, so n samples give
    n // (rate // 100) frames.

    With a mask each row ends, and is reflected, where its last sample counts, and its largest value is that of its
    frames that count: a row gives there what it gives alone. OpenAI's models are fed 30 s padded with zeros that do
    count: for them pad, and give no mask.

    Raises ValueError for fewer samples than one frame has.
    """

    kernel: Tensor
    filters: Tensor

    def __init__(self, mels: int = 80, rate: int = 16000) -> None:
        super().__init__()
        self.mels = mels
        self.rate = rate
        self.window, self.hop = _window_and_hop(mels, rate)
        edges = [slaney_hertz(i * slaney_mel(rate / 2) / (mels + 1)) for i in range(mels + 2)]
        areas = torch.tensor([(high - low) / 2 for low, high in zip(edges[:-2], edges[2:], strict=True)])
        filters = triangles(_frequencies(self.window, rate), edges) / areas[:, None]
        kernel = fourier(self.window, self.window) * hann(self.window, self.window)
        self.register_buffer("kernel", kernel.to(torch.get_default_dtype()))
        self.register_buffer("filters", filters.to(torch.get_default_dtype()))

    def forward(
        self, input_values: Float[Tensor, "batch samples"], mask: Bool[Tensor, "batch samples"] | None = None
    ) -> LogMelOutput:
        samples = input_values.shape[1]
        require_length(samples, self.hop, "samples")
        mask = full_mask(input_values) if mask is None else mask
        counted = input_values.masked_fill(~mask, 0)
        power = mel_power(counted.gather(1, self._reflected(mask)), self.kernel, self.filters, self.hop)
        mask = mask[:, self.hop - 1 :: self.hop].contiguous()
        log = power.clamp(min=WHISPER_FLOOR).log10()
        largest = log.masked_fill(~mask[..., None], math.log10(WHISPER_FLOOR)).amax((1, 2), keepdim=True)
        log = torch.maximum(log, largest - 8)
        return LogMelOutput(((log + 4) / 4).to(input_values.dtype), mask)

    def _reflected(self, mask: Tensor) -> Tensor:
        """Which sample of its row stands at each place of the padded rows: half a window before the first sample, and
        as far beyond the end as the last frame reaches."""
        samples = mask.shape[1]
        place = torch.arange(samples + self.window - self.hop, device=mask.device) - self.window // 2
        last = (mask * torch.arange(samples, device=mask.device)).amax(1, keepdim=True)
        there_and_back = (2 * last).clamp(min=1)
        return last - (last - place.remainder(there_and_back)).abs()


class FilterBankOutput(NamedTuple):
    output: Float[Tensor, "batch (samples-{self.rate}//40)//({self.rate}//100)+1 {self.mels}"]
    mask: Bool[Tensor, "batch (samples-{self.rate}//40)//({self.rate}//100)+1"]


class FilterBank(nn.Module):
    """Kaldi's log-mel filter bank (Povey et al., 2011) of a waveform in -1..1 at `rate` Hz, without dither.

    Windows of 25 ms (rate//40 samples) every 10 ms (rate//100) that lie within the waveform (`snip_edges`); the mean
    taken out of each; pre-emphasis of 0.97; Povey's window, or Hann's (`shape`) as AST has it; power of the Fourier
    transform padded to a power of two; `mels` triangles on the scale 1127 ln(1 + f/700) from 20 Hz to half the rate;
    natural log, floored at the spacing of float32. A filter narrower than the spacing of the transform may be empty and
    then gives the floor, as in Kaldi.

    With a mask a frame counts where its last sample does. Kaldi itself reads 16-bit numbers: times 32768 its values
    come out.

    Raises ValueError for fewer samples than one window has.
    """

    kernel: Tensor
    filters: Tensor

    def __init__(self, mels: int = 80, rate: int = 16000, shape: Literal["povey", "hann"] = "povey") -> None:
        super().__init__()
        self.mels = mels
        self.rate = rate
        self.shape = shape
        self.window, self.hop = _window_and_hop(mels, rate)
        size = 1 << (self.window - 1).bit_length()
        low, high = kaldi_mel(LOWEST), kaldi_mel(rate / 2)
        edges = [low + i * (high - low) / (mels + 1) for i in range(mels + 2)]
        filters = triangles([kaldi_mel(hertz) for hertz in _frequencies(size, rate)], edges)
        # All that Kaldi does to a window before the transform is linear, and so is a part of the kernel. What comes
        # before the first sample does not matter, because the window weighs that one with 0.
        basis = fourier(size, self.window) * hann(self.window, self.window - 1) ** (0.85 if shape == "povey" else 1.0)
        kernel = basis - PREEMPHASIS * F.pad(basis[:, 1:], (0, 1))
        kernel = kernel - kernel.mean(1, keepdim=True)
        self.register_buffer("kernel", kernel.to(torch.get_default_dtype()))
        self.register_buffer("filters", filters.to(torch.get_default_dtype()))

    def forward(
        self, input_values: Float[Tensor, "batch samples"], mask: Bool[Tensor, "batch samples"] | None = None
    ) -> FilterBankOutput:
        require_length(input_values.shape[1], self.window, "samples")
        mask = full_mask(input_values) if mask is None else mask
        power = mel_power(input_values.masked_fill(~mask, 0), self.kernel, self.filters, self.hop)
        log = power.clamp(min=KALDI_FLOOR).log()
        return FilterBankOutput(log.to(input_values.dtype), mask[:, self.window - 1 :: self.hop].contiguous())


def mel_power(x: Tensor, kernel: Tensor, filters: Tensor, hop: int) -> Tensor:
    """The power `[batch, frames, mels]` of `x[batch, samples]` in each filter, in float32 at least."""
    precise = torch.promote_types(x.dtype, torch.float32)
    with _no_autocast(x.device.type):
        waves = F.conv1d(x.to(precise)[:, None], kernel.to(precise)[:, None], stride=hop)
        cosines, sines = waves.square().chunk(2, dim=1)
        return by_place(filters.to(precise) @ (cosines + sines))


def _no_autocast(device: str) -> contextlib.AbstractContextManager[object]:
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()


def _window_and_hop(mels: int, rate: int) -> tuple[int, int]:
    require_positive(mels=mels)
    if rate < 200:
        raise ValueError(f"rate must be at least 200 Hz, but is {rate}")
    return rate // 40, rate // 100


def fourier(size: int, window: int) -> Tensor:
    """The cosines of the Fourier transform of `size` points over the first `window` of them, then its sines:
    `[2 * (size//2 + 1), window]` in float64."""
    turns = torch.arange(size // 2 + 1)[:, None] * torch.arange(window) % size
    angles = turns.to(torch.float64) * (2 * math.pi / size)
    return torch.cat((angles.cos(), angles.sin()))


def hann(window: int, period: int) -> Tensor:
    """Half a cosine upside down, from 0 back to 0 in `period` samples: `[window]` in float64."""
    return 0.5 - 0.5 * torch.cos(torch.arange(window, dtype=torch.float64) * (2 * math.pi / period))


def _frequencies(size: int, rate: int) -> list[float]:
    """The frequencies in Hz of a Fourier transform of `size` points."""
    return [i * rate / size for i in range(size // 2 + 1)]


def triangles(points: list[float], edges: list[float]) -> Tensor:
    """`[len(edges) - 2, len(points)]` in float64: a filter rises from 0 at its edge to 1 at the next, and falls to 0 at
    the one after that."""
    place = torch.tensor(points, dtype=torch.float64)
    edge = torch.tensor(edges, dtype=torch.float64)[:, None]
    rising = (place - edge[:-2]) / (edge[1:-1] - edge[:-2])
    falling = (edge[2:] - place) / (edge[2:] - edge[1:-1])
    return torch.minimum(rising, falling).clamp(min=0)


def slaney_mel(hertz: float) -> float:
    """Slaney's scale (1998): linear to 1000 Hz, logarithmic from there on."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def slaney_hertz(mel: float) -> float:
    """The inverse of `slaney_mel`."""
    return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def kaldi_mel(hertz: float) -> float:
    """The scale of HTK and Kaldi."""
    return 1127 * math.log(1 + hertz / 700)
