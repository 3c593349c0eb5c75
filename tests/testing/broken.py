"""A few sound components, and for every law one or more that break it and no other."""

import time
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class Rowwise(nn.Module):
    """A sound component whose leading axes are independent."""

    def __init__(self, d_model: int, scale: float = 1.0) -> None:
        super().__init__()
        if d_model % 2:
            raise ValueError(f"d_model {d_model} is odd")
        self.d_model = d_model
        self.scale = scale
        self.linear = nn.Linear(d_model, d_model)
        self.register_buffer("offset", torch.arange(d_model) / d_model)

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return self.linear(x) * self.scale + self.offset


class Mixing(nn.Module):
    """A sound component that mixes positions: the mean of the visible past, with a learned vector for each position."""

    limits: ClassVar[dict[str, str]] = {"sequence": "length"}

    def __init__(self, d_model: int, length: int, causal: bool = True) -> None:
        super().__init__()
        self.d_model = d_model
        self.length = length
        self.causal = causal
        self.linear = nn.Linear(d_model, d_model)
        self.table = nn.Parameter(torch.randn(length, d_model))

    def forward(
        self,
        x: Float[Tensor, "batch sequence {self.d_model}"],
        attention_mask: Bool[Tensor, "batch sequence"] | None = None,
    ) -> Float[Tensor, "batch sequence {self.d_model}"]:
        place = torch.arange(x.shape[1])
        x = self.linear(x) + F.embedding(place, self.table)
        visible = (place[:, None] >= place)[None] if self.causal else torch.ones_like(place[:, None] >= place)[None]
        if attention_mask is not None:
            visible = visible & attention_mask[:, None]
        return self.mix(visible, x)

    def step(
        self, x: Float[Tensor, "batch sequence {self.d_model}"], position: Int[Tensor, "batch"], cache: Tensor
    ) -> tuple[Tensor, Tensor]:
        place = position[:, None] + torch.arange(x.shape[1])
        cache[torch.arange(x.shape[0])[:, None], place] = self.linear(x) + F.embedding(place, self.table)
        return self.mix(place[..., None] >= torch.arange(cache.shape[1]), cache), cache

    def state(self, batch: int, capacity: int) -> tuple[Tensor]:
        if not self.causal:
            raise ValueError("only a causal mean can be stepped")
        return (self.table.new_zeros(batch, capacity, self.d_model),)

    def mix(self, visible: Tensor, x: Tensor) -> Tensor:
        weights = visible.to(x.dtype)
        return torch.matmul(weights, x) / weights.sum(-1, keepdim=True).clamp(min=1)


class Patched(NamedTuple):
    patches: Float[Tensor, "batch (height//{self.patch})*(width//{self.patch}) {self.d_model}"]
    place: Int[Tensor, "batch (height//{self.patch})*(width//{self.patch})"]


class Patches(nn.Module):
    """A sound component with two outputs, whose sizes are worked out from free names."""

    def __init__(self, d_model: int, patch: int = 16, channels: int = 3) -> None:
        super().__init__()
        self.d_model = d_model
        self.patch = patch
        self.channels = channels
        self.project = nn.Conv2d(channels, d_model, patch, patch)

    def forward(self, pixel_values: Float[Tensor, "batch {self.channels} height width"]) -> Patched:
        patches = self.project(pixel_values).flatten(2).transpose(1, 2)
        return Patched(patches, torch.arange(patches.shape[1]).repeat(patches.shape[0], 1))


class Recalling(nn.Module):
    """A sound component that adds the mean of a memory, which it works out once."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model
        self.linear = nn.Linear(d_model, d_model)

    def forward(
        self,
        x: Float[Tensor, "batch sequence {self.d_model}"],
        memory: Float[Tensor, "batch memory {self.d_model}"],
        mask: Bool[Tensor, "batch memory"] | None = None,
    ) -> Float[Tensor, "batch sequence {self.d_model}"]:
        mean, present = Recalling.prepare(self, memory, mask)
        return x + mean * present

    def prepare(
        self,
        memory: Float[Tensor, "batch memory {self.d_model}"],
        mask: Bool[Tensor, "batch memory"] | None = None,
    ) -> tuple[Tensor, Tensor]:
        weights = torch.ones(memory.shape[:2]) if mask is None else mask
        weights = weights.to(memory.dtype)[..., None]
        count = weights.sum(1, keepdim=True)
        return self.linear((memory * weights).sum(1, keepdim=True) / count.clamp(min=1)), (count > 0).to(memory.dtype)

    def step(
        self,
        x: Float[Tensor, "batch sequence {self.d_model}"],
        position: Int[Tensor, "batch"],
        mean: Tensor,
        present: Tensor,
    ) -> Tensor:
        return x + mean * present


class Unmasked(Mixing):
    """The same without a mask: sound, and quicker to export."""

    def forward(
        self, x: Float[Tensor, "batch sequence {self.d_model}"]
    ) -> Float[Tensor, "batch sequence {self.d_model}"]:
        return super().forward(x)


class NarrowOutput(Rowwise):
    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return super().forward(x)[..., :-1]


class Two(NamedTuple):
    output: Float[Tensor, "*lead {self.d_model}"]
    loss: Float[Tensor, ""]


class MissingOutput(Rowwise):
    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Two:
        return super().forward(x)  # type: ignore[return-value]


class WholeNumberOutput(Rowwise):
    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Int[Tensor, "*lead {self.d_model}"]:
        return super().forward(x)


class UnknownSize(Rowwise):
    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead width"]:
        return super().forward(x)


class Widening(Rowwise):
    """Answers a half-precision model in float32."""

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        y = super().forward(x)
        return y.float() if y.dtype == torch.float16 else y


class Overflowing(Rowwise):
    """Masks with a number that float16 does not have, which leaves nothing to attend to."""

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return torch.softmax(x * 0 - 1e9, -1) + super().forward(x)


class Centred(Rowwise):
    """Takes the mean of the batch away."""

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return super().forward(x) - (x.mean(0, keepdim=True) if x.dim() > 1 else 0)


class SecondLeadMixed(Rowwise):
    """Independent along its first axis and not along the second."""

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return super().forward(x) - (x.mean(1, keepdim=True) if x.dim() > 2 else 0)


class BatchCentred(nn.Module):
    """Takes the mean of the batch away, where the axis is called by name."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        return x - x.mean(0)


class Foresight(nn.Module):
    """Says that it is causal, and looks one position ahead."""

    causal = True

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "batch sequence"]) -> Float[Tensor, "batch sequence"]:
        return x + 1e-6 * x.roll(-1, dims=1)


class DeafToMask(Mixing):
    """Lets masked positions into the mean, a little."""

    def forward(
        self,
        x: Float[Tensor, "batch sequence {self.d_model}"],
        attention_mask: Bool[Tensor, "batch sequence"] | None = None,
    ) -> Float[Tensor, "batch sequence {self.d_model}"]:
        y = super().forward(x, attention_mask)
        return y if attention_mask is None else y + 1e-6 * super().forward(x)


class PairsOutput(NamedTuple):
    output: Float[Tensor, "batch frames//2"]
    mask: Bool[Tensor, "batch frames//2"]


class LeakyPairs(nn.Module):
    """Sums of pairs of frames, which hear a little of what the mask hides. It gives a mask of its own."""

    def __init__(self) -> None:
        super().__init__()

    def forward(
        self, x: Float[Tensor, "batch frames"], mask: Bool[Tensor, "batch frames"] | None = None
    ) -> PairsOutput:
        mask = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
        counted = torch.where(mask, x, 1e-6 * x)
        pairs = x.shape[1] // 2 * 2
        return PairsOutput(counted[:, :pairs:2] + counted[:, 1:pairs:2], mask[:, 1::2])


class Pooled(NamedTuple):
    output: Float[Tensor, "batch width"]
    mask: Bool[Tensor, "batch"]


class LeakyPool(nn.Module):
    """Counts masked positions in the mean of a row that its own mask calls present."""

    def forward(self, x: Float[Tensor, "batch sequence width"], mask: Bool[Tensor, "batch sequence"]) -> Pooled:
        return Pooled(x.mean(1), mask.any(1))


class DeafToOneMask(nn.Module):
    """Hides the first where it is masked, and lets the second in."""

    def forward(
        self,
        first: Float[Tensor, "*lead"],
        second: Float[Tensor, "*lead"],
        first_mask: Bool[Tensor, "*lead"],
        second_mask: Bool[Tensor, "*lead"],
    ) -> Float[Tensor, "*lead"]:
        return first * first_mask + second * (second_mask | first_mask)


class ForgetsPosition(Mixing):
    """Steps as if every row began at the first position."""

    def step(
        self, x: Float[Tensor, "batch sequence {self.d_model}"], position: Int[Tensor, "batch"], cache: Tensor
    ) -> tuple[Tensor, Tensor]:
        return super().step(x, torch.zeros_like(position), cache)


class OnePositionForAll(Mixing):
    """Steps all rows at the position of the first."""

    def step(
        self, x: Float[Tensor, "batch sequence {self.d_model}"], position: Int[Tensor, "batch"], cache: Tensor
    ) -> tuple[Tensor, Tensor]:
        return super().step(x, position[:1].expand_as(position), cache)


class SeesGarbage(Mixing):
    """Takes the mean of the whole cache where a prompt is stepped, padding and earlier texts included."""

    def step(
        self, x: Float[Tensor, "batch sequence {self.d_model}"], position: Int[Tensor, "batch"], cache: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, cache = super().step(x, position, cache)
        return y + 1e-6 * cache.sum(1, keepdim=True), cache


class StateOfOneDtype(Mixing):
    """Remembers in float32 whatever the model's dtype."""

    def state(self, batch: int, capacity: int) -> tuple[Tensor]:
        return (super().state(batch, capacity)[0].to(torch.float32),)


class PreparesWithoutMask(Recalling):
    """Looks at what the mask hides, in prepare() alone."""

    def prepare(
        self,
        memory: Float[Tensor, "batch memory {self.d_model}"],
        mask: Bool[Tensor, "batch memory"] | None = None,
    ) -> tuple[Tensor, Tensor]:
        return super().prepare(memory)


class UsesUpWhatIsPrepared(Recalling):
    """Is right at the first step, and spoils what the next ones read."""

    def step(
        self,
        x: Float[Tensor, "batch sequence {self.d_model}"],
        position: Int[Tensor, "batch"],
        mean: Tensor,
        present: Tensor,
    ) -> Tensor:
        return x + mean.mul_(present)[:].clone() + 0 * mean.zero_()


class PreparesLessThanItSays(Recalling):
    """Says that prepare() gives two tensors, and gives one."""

    def prepare(
        self,
        memory: Float[Tensor, "batch memory {self.d_model}"],
        mask: Bool[Tensor, "batch memory"] | None = None,
    ) -> tuple[Tensor, Tensor]:
        mean, present = super().prepare(memory, mask)
        return (mean * present,)  # type: ignore[return-value]


class PreparesSomeTensors(Recalling):
    """Does not say how many tensors prepare() gives."""

    def prepare(
        self,
        memory: Float[Tensor, "batch memory {self.d_model}"],
        mask: Bool[Tensor, "batch memory"] | None = None,
    ) -> tuple[Tensor, ...]:
        return super().prepare(memory, mask)


class PreparesWhatItDoesNotRead(Recalling):
    """Has a port in prepare() that forward() has not."""

    def prepare(self, others: Float[Tensor, "batch memory {self.d_model}"]) -> tuple[Tensor, Tensor]:
        return super().prepare(others)


class RootOfZero(Rowwise):
    """The gradient of a square root at zero is infinite, and times zero it is not a number."""

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return super().forward(x) + (x * (x > 0)).sqrt()


class Detached(Rowwise):
    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return super().forward(x).detach() + x


class AlwaysDropping(Rowwise):
    """Drops in evaluation mode too."""

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return F.dropout(super().forward(x), 0.5, training=True)


class Overwriting(Rowwise):
    """Writes into its input."""

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return super().forward(x.mul_(2))


class Counting(Rowwise):
    """Counts its calls in a buffer, in evaluation mode too."""

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        self.calls += 1
        return super().forward(x)


class ReadsWhileBuilding(Rowwise):
    """Needs a tensor's value in the constructor, which has none on the meta device."""

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model)
        self.factor = float(torch.tensor(2.0).sqrt())


class UnregisteredTable(Rowwise):
    """Keeps a tensor that loading does not bring along."""

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model)
        self.register_buffer("hidden", torch.ones(()), persistent=False)

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return super().forward(x) * self.hidden


class RandomConstant(Rowwise):
    """Draws a number that is not in the state dict."""

    def __init__(self, d_model: int) -> None:
        shift = float(torch.rand((), device="cpu"))
        super().__init__(d_model)
        self.shift = shift

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return super().forward(x) + self.shift


class ShorterThanItSays(Mixing):
    """Where `limits` promises 8 positions it has 7, which are as many as the other laws draw."""

    def forward(
        self,
        x: Float[Tensor, "batch sequence {self.d_model}"],
        attention_mask: Bool[Tensor, "batch sequence"] | None = None,
    ) -> Float[Tensor, "batch sequence {self.d_model}"]:
        if x.shape[1] == self.length == 8:
            raise IndexError("too long")
        return super().forward(x, attention_mask)


class LongerThanItSays(nn.Module):
    """Promises a limit and does not keep to it."""

    limits: ClassVar[dict[str, str]] = {"width": "length"}

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
        return x


class LimitOfNothing(LongerThanItSays):
    """Promises a limit for an axis that it does not have."""

    limits: ClassVar[dict[str, str]] = {"sequenz": "length"}


class LooksAtTheClock(Rowwise):
    """Calls what Dynamo cannot trace."""

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return super().forward(x) + 0 * time.perf_counter()


class OtherWhenCompiled(Rowwise):
    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return super().forward(x) + (0.001 if torch.compiler.is_dynamo_compiling() else 0)


class CompiledForOneSize(Rowwise):
    """Is compiled anew for every size."""

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        y = super().forward(x)
        return y + len(range(x.shape[0])) * 0 if torch.compiler.is_dynamo_compiling() and x.shape[0] % 3 else y


class OtherWhenExported(Rowwise):
    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return super().forward(x) + (0.001 if torch.compiler.is_exporting() else 0)


class OneRowApart(Rowwise):
    """Takes another path for a single row, so that the axis is not free."""

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        y = super().forward(x)
        return y + 0.001 if x.dim() > 1 and x.shape[0] == 1 else y


class NotInONNX(Rowwise):
    """Uses an operation that has no ONNX form."""

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, "*lead {self.d_model}"]:
        return super().forward(x) + torch.special.bessel_j0(x.float()).to(x.dtype)


class NeverDeployed(NotInONNX):
    """A loss that cannot be exported, and says so."""

    training_only: ClassVar[bool] = True

    def forward(self, x: Float[Tensor, "*lead {self.d_model}"]) -> Float[Tensor, ""]:
        return super().forward(x).mean()


class NeverDeployedRows(Rowwise):
    """Says that it is for training only, and gives more than a loss."""

    training_only: ClassVar[bool] = True


class StepNotCompiled(Unmasked):
    """Calls what Dynamo cannot trace, only when stepped."""

    def step(
        self, x: Float[Tensor, "batch sequence {self.d_model}"], position: Int[Tensor, "batch"], cache: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, cache = super().step(x, position, cache)
        return y + 0 * time.perf_counter(), cache


class StepOtherWhenExported(Unmasked):
    def step(
        self, x: Float[Tensor, "batch sequence {self.d_model}"], position: Int[Tensor, "batch"], cache: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, cache = super().step(x, position, cache)
        return y, cache + (0.001 if torch.compiler.is_exporting() else 0)


class StepNotInONNX(Unmasked):
    def step(
        self, x: Float[Tensor, "batch sequence {self.d_model}"], position: Int[Tensor, "batch"], cache: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, cache = super().step(x, position, cache)
        return y + 0 * torch.special.bessel_j0(y.float()).to(y.dtype), cache


class NeverBuilt(nn.Module):
    """Refuses all settings."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        raise ValueError("no")

    def forward(self, x: Float[Tensor, "*lead"]) -> Float[Tensor, "*lead"]:
        return x


class Undrawable(nn.Module):
    """Has a setting that says nothing of what to draw."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Float[Tensor, "*lead"]) -> Float[Tensor, "*lead"]:
        return x
