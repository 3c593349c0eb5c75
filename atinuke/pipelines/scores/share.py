"""A share of trials, with how far chance may have moved it."""

import math
from dataclasses import dataclass

Z = 1.959963984540054  # 95 % of a normal distribution lie within so many deviations of its mean


@dataclass(frozen=True)
class Share:
    """How many of `n` came true, from 0 to 1, and the 95 % interval `low` to `high`; NaN where n is 0."""

    value: float
    n: int
    low: float
    high: float

    def __str__(self) -> str:
        if not self.n:
            return "none (n = 0)"
        return f"{self.value:.1%} (95 % interval {self.low:.1%} to {self.high:.1%}, n = {self.n:,})"


def share(right: int, n: int) -> Share:
    """`right` of `n` with Wilson's score interval (1927), which holds for small n and near 0 and 1 too."""
    if not n:
        return Share(math.nan, 0, math.nan, math.nan)
    p = right / n
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    reach = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return Share(p, n, min(p, max(0.0, middle - reach)), max(p, min(1.0, middle + reach)))
