"""The objective of coreference: which spans are mentions, and which antecedents they have."""

from typing import Literal

from atinuke.core.checked import CheckedGraph
from atinuke.core.graph import Input, Range, Wire
from atinuke.pipelines.objective import LOSS, Added, Objective, node, output, sizes

LABELS, MENTION_LOSS = "labels", "mention_loss"
MENTIONS = "mentions"  # an output, and the axis of the labels
MOST_MENTIONS = 65536


class Coreference(Objective):
    """Minus the logarithm of the probability of the right antecedents (Lee et al., 2017), from the output `antecedents`
    of the spans `kept`, plus that of which `spans`, an input, are mentions, from the output `mentions`. The input
    `labels` `[batch, mentions, 3]` has first position, the one behind the last, and cluster, from 1."""

    name: Literal["coreference"]

    def added(self, checked: CheckedGraph, prefix: str = "") -> Added:
        (mentions, given), (kept, _), (antecedents, _) = (
            output(checked, name) for name in (MENTIONS, "kept", "antecedents")
        )
        losses = {
            f"{prefix}{LOSS}": ("loss.antecedents", antecedents, kept),
            f"{prefix}{MENTION_LOSS}": ("loss.mentions", mentions, Wire("spans")),
        }
        nodes = {
            name: node(use, {"scores": scores, "spans": spans, "labels": Wire(LABELS)})
            for name, (use, scores, spans) in losses.items()
        }
        inputs = {LABELS: Input("int64", (*sizes(given.shape[:1]), f"{prefix}{MENTIONS}", "3"))}
        axes = {f"{prefix}{MENTIONS}": Range(1, MOST_MENTIONS)}
        return Added(nodes, inputs, {name: Wire(name) for name in nodes}, axes)

    def own(self, prefix: str = "") -> dict[str, float]:
        return dict.fromkeys((f"{prefix}{LOSS}", f"{prefix}{MENTION_LOSS}"), self.weight)
