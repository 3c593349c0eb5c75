"""How many layers of a graph stand behind each of its parameters: for rates that decay from layer to layer."""

from collections.abc import Mapping

from torch import nn

from atinuke.core.checked import CheckedBody, CheckedGraph, CheckedNode


def heights(checked: CheckedGraph, module: nn.Module) -> dict[str, int]:
    """For every parameter of the graph's module, how many layers it is away from the outputs.

    Each instance of a repeated block is a layer. What stands behind all of them (a head) has height 0, the last
    instance 1, and what stands in front of n of them (embeddings) n + 1; where ways part, the longest counts.
    """
    found: dict[str, int] = {}
    _measure(checked.body, "", 0, found)
    return {name: _of(name, found) for name, _ in module.named_parameters()}


def _measure(body: CheckedBody, path: str, behind: int, found: dict[str, int]) -> int:
    """Notes the heights of a body's nodes by path; the height of what feeds it."""
    before: dict[str, int] = {wire.node: behind for wire in body.body.outputs.values()}
    for name, node in reversed(list(body.nodes.items())):
        height = before.get(name, behind)
        reading = _node(node, f"{path}{name}", height, found)
        for wires in node.feeds.values():
            for wire in wires:
                before[wire.node] = max(before.get(wire.node, 0), reading)
    return max((before.get(name, behind) for name in body.inputs), default=behind)


def _node(node: CheckedNode, path: str, height: int, found: dict[str, int]) -> int:
    if node.repeated:
        times = len(node.instances)
        found.update({f"{path}.{index}": height + times - index for index in range(times)})
        return height + times + 1
    if node.instances:
        return _measure(node.instances[0], f"{path}.", height, found)
    found[path] = height
    return height


def _of(name: str, found: Mapping[str, int]) -> int:
    while name not in found:
        name = name.rpartition(".")[0]
    return found[name]
