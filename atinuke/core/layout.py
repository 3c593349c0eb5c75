"""Where the boxes and wires of a picture go: in layers, from top to bottom (Sugiyama, Tagawa and Toda, 1981).

A wire that passes a layer has a place of its own in it, a lane, so that it never runs through a box.
"""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean as mean
from statistics import median
from typing import Literal

LANE = 8.0  # the room on either side of a passing wire
GAP = 14.0  # between neighbours in a layer
SWEEPS = 8
NUDGE = 1e-6  # orders wires that leave one box side by side


@dataclass(eq=False)
class Place:
    """Room for a box: `left` and `right` of its axis, and `height`. `arrange` finds its `layer` and its axis's `x`."""

    left: float
    right: float
    height: float = 0.0
    pin: Literal["top", "bottom", "lane"] | None = None
    x: float = 0.0
    layer: int = 0


@dataclass(frozen=True)
class Link:
    """A wire between two boxes; it leaves and arrives that far to the right of their axes."""

    source: str
    target: str
    leaves: float = 0.0
    arrives: float = 0.0


@dataclass
class Layout:
    """The layers, each from left to right, and the lanes that each link takes, from top to bottom."""

    layers: list[list[Place]]
    lanes: list[list[Place]]


@dataclass(frozen=True)
class _Tie:
    """A link to the next layer, seen from one end; it is fixed `mine` and `theirs` to the right of the axes."""

    other: Place
    mine: float
    theirs: float
    strength: int

    @property
    def wants(self) -> float:
        """The x with which the wire would be straight."""
        return self.other.x + self.theirs - self.mine


@dataclass
class _Ties:
    """What each place is tied to in the layer above and in the layer below; wires between boxes are straight first."""

    above: dict[Place, list[_Tie]] = field(default_factory=dict)
    below: dict[Place, list[_Tie]] = field(default_factory=dict)

    def add(self, upper: Place, lower: Place, leaves: float, arrives: float) -> None:
        strength = 1 if "lane" in (upper.pin, lower.pin) else 4
        self.above.setdefault(lower, []).append(_Tie(upper, arrives, leaves, strength))
        self.below.setdefault(upper, []).append(_Tie(lower, leaves, arrives, strength))


def arrange(places: Mapping[str, Place], links: Sequence[Link]) -> Layout:
    """Finds layer and x of every place; `places` come in an order in which links point forward."""
    _assign_layers(places, links)
    layers: list[list[Place]] = [[] for _ in range(1 + max(place.layer for place in places.values()))]
    lanes: list[list[Place]] = []
    ties = _Ties()
    for link in links:
        source, target = places[link.source], places[link.target]
        passed = range(source.layer + 1, target.layer)
        lanes.append([Place(LANE, LANE, pin="lane", layer=layer) for layer in passed])
        chain = [source, *lanes[-1], target]
        for upper, lower in itertools.pairwise(chain):
            ties.add(upper, lower, link.leaves * (upper is source), link.arrives * (lower is target))
        for lane in lanes[-1]:
            layers[lane.layer].append(lane)
    for place in places.values():
        layers[place.layer].append(place)  # after the lanes, which so tend to the left
    _order(layers, ties)
    _align(layers, ties)
    ends = [(places[link.source].x + link.leaves, places[link.target].x + link.arrives) for link in links]
    _straighten(layers, lanes, ends)
    least = min(place.x - place.left for layer in layers for place in layer)
    for layer in layers:
        for place in layer:
            place.x -= least
    return Layout(layers, lanes)


def _assign_layers(places: Mapping[str, Place], links: Sequence[Link]) -> None:
    """As far down as the longest way from the top; what nothing feeds stands right above its first reader."""
    sources: dict[str, list[str]] = {name: [] for name in places}
    readers: dict[str, list[str]] = {name: [] for name in places}
    for link in links:
        sources[link.target].append(link.source)
        readers[link.source].append(link.target)
    for name, place in places.items():
        place.layer = max((places[source].layer + 1 for source in sources[name]), default=0)
    last = max(place.layer for place in places.values())
    for name, place in places.items():
        if place.pin == "bottom":
            place.layer = last
        elif not place.pin and not sources[name] and readers[name]:
            place.layer = min(places[reader].layer for reader in readers[name]) - 1


def _order(layers: list[list[Place]], ties: _Ties) -> None:
    """Orders every layer so that few wires cross: by the mean rank of what a place is tied to, down and up in turn."""
    best, fewest = [list(layer) for layer in layers], _crossings(layers, ties)
    for sweep in range(SWEEPS):
        side, order = (ties.above, layers) if sweep % 2 == 0 else (ties.below, layers[::-1])
        for before, layer in itertools.pairwise(order):
            rank = _ranks(before, layer)
            wanted = {place: [rank[tie.other] + NUDGE * tie.theirs for tie in side.get(place, ())] for place in layer}
            means = {place: mean(ranks or [rank[place]]) for place, ranks in wanted.items()}
            layer.sort(key=means.__getitem__)
        crossings = _crossings(layers, ties)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    layers[:] = best


def _ranks(*layers: Sequence[Place]) -> dict[Place, int]:
    return {place: rank for layer in layers for rank, place in enumerate(layer)}


def _crossings(layers: Sequence[Sequence[Place]], ties: _Ties) -> int:
    total = 0
    for upper, lower in itertools.pairwise(layers):
        rank = _ranks(upper, lower)
        links = [(place, tie) for place in upper for tie in ties.below.get(place, ())]
        arrived: list[float] = []
        for _, lands in sorted((rank[p] + NUDGE * t.mine, rank[t.other] + NUDGE * t.theirs) for p, t in links):
            total += len(arrived) - bisect.bisect_right(arrived, lands)
            bisect.insort(arrived, lands)
    return total


def _align(layers: Sequence[Sequence[Place]], ties: _Ties) -> None:
    """Finds x: every place goes where the wires from one side want it, as far as its neighbours leave room."""
    for layer in layers:
        _settle(layer, [0.0] * len(layer), [1.0] * len(layer))
    for sweep in range(SWEEPS + 1):
        side, order = (ties.above, layers[1:]) if sweep % 2 == 0 else (ties.below, layers[-2::-1])
        for layer in order:
            wanted = [_wanted(place, side.get(place, ()), ties) for place in layer]
            _settle(layer, wanted, [_weight(place, ties) for place in layer])


def _wanted(place: Place, side: Sequence[_Tie], ties: _Ties) -> float:
    if place.pin == "lane" and side[0].other.pin != "lane":
        both = (*ties.above[place], *ties.below[place])
        if any(tie.other.pin == "lane" for tie in both):
            return place.x  # the end of a lane follows the lane, not the box
    return median([tie.wants for tie in side for _ in range(tie.strength)] or [place.x])


def _weight(place: Place, ties: _Ties) -> float:
    """A box between boxes stays; one that has a box on one side alone gives way to it, and a lane to all."""
    if place.pin == "lane":
        return 1e-9
    sides = (ties.above.get(place, ()), ties.below.get(place, ()))
    return float(1000 ** (sum(any(tie.other.pin != "lane" for tie in side) for side in sides) - 2))


def _settle(layer: Sequence[Place], wanted: Sequence[float], weights: Sequence[float]) -> None:
    """Moves the places of a layer as little as possible from where they want to be, in order and without overlap.

    Isotonic regression by pooling adjacent violators (Ayer et al., 1955).
    """
    starts: list[float] = []
    for i, place in enumerate(layer):
        before = layer[i - 1] if i else None
        starts.append(starts[-1] + before.right + GAP + place.left if before else 0.0)
    pools: list[tuple[float, float, int]] = []  # where, weight, number of places
    for want, weight, start in zip(wanted, weights, starts, strict=True):
        pool = (want - start, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            where, other, count = pools.pop()
            pool = ((where * other + pool[0] * pool[1]) / (other + pool[1]), other + pool[1], count + pool[2])
        pools.append(pool)
    settled = [where for where, _, count in pools for _ in range(count)]
    for place, where, start in zip(layer, settled, starts, strict=True):
        place.x = where + start


def _straighten(
    layers: Sequence[Sequence[Place]], lanes: Sequence[Sequence[Place]], ends: Sequence[Sequence[float]]
) -> None:
    """Gives all the lanes of a link one x where there is room for it: best that of an end, so that it bends least."""
    for run, wanted in zip(lanes, ends, strict=True):
        low, high = float("-inf"), float("inf")
        for lane in run:
            layer = layers[lane.layer]
            at = layer.index(lane)
            if at > 0:
                low = max(low, layer[at - 1].x + layer[at - 1].right + GAP + lane.left)
            if at + 1 < len(layer):
                high = min(high, layer[at + 1].x - layer[at + 1].left - GAP - lane.right)
        if run and low <= high:
            x = next((x for x in wanted if low <= x <= high), min(max(run[0].x, low), high))
            for lane in run:
                lane.x = x
