"""What printing a class needs: a name of its own for every thing, calls with their arguments, small pieces of text."""

import keyword
import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from atinuke.compile.step import StepPlan
from atinuke.core.checked import CheckedBody, CheckedNode
from atinuke.core.graph import Wire

INDENT = "    "
ABSENT = ""  # the variable of what is not there

Wires = dict[tuple[str, str], str]  # (node, output) -> the variable that holds it; "" is a node's first output


@dataclass
class Printed:
    """A class to be printed: a body, how it is stepped, and whether its constructor needs the index of the instance."""

    name: str
    body: CheckedBody
    plan: StepPlan | None
    indexed: bool
    root: bool = False


@dataclass
class Names:
    """Gives every thing a name of its own within a scope."""

    taken: set[str] = field(default_factory=set)

    def new(self, wanted: str) -> str:
        """`wanted`, or with a number behind it where that is taken."""
        name, number = wanted, 2
        while name in self.taken or keyword.iskeyword(name):
            name, number = f"{wanted}_{number}", number + 1
        self.taken.add(name)
        return name


def block_key(node: CheckedNode) -> tuple[str, str]:
    """What tells apart the classes of blocks: the block, and the dims it is given."""
    return node.node.use, repr(sorted(node.settings.items()))


def input_wires(body: CheckedBody, there: Container[str] | None = None) -> Wires:
    """The inputs of a body, which are the first variables of its methods; where only some are `there`, the others are
    absent."""
    return {(name, ""): name if there is None or name in there else ABSENT for name in body.body.inputs}


def parameters(body: CheckedBody, names: Iterable[str]) -> list[str]:
    """Inputs of a body as parameters of a method: those that may be left out come last."""
    declared = {name: body.body.inputs[name] for name in names}
    needed = [f"{name}: Tensor" for name, i in declared.items() if not i.optional]
    return needed + [f"{name}: Tensor | None = None" for name, i in declared.items() if i.optional]


def value(wires: Wires, wire: Wire) -> str:
    """The variable that holds what a wire carries."""
    return wires[(wire.node, wire.output or "")]


def arguments(node: CheckedNode, read: Callable[[Wire], str]) -> list[str]:
    """The arguments of a call: positional as long as the ports follow one another, then by name. `read` gives the
    variable of a wire, or `ABSENT`."""
    order = list(node.signature.inputs) if node.signature else list(node.instances[0].body.inputs)
    found: list[str] = []
    positional = True
    for port in order:
        variables = [variable for variable in map(read, node.feeds.get(port, ())) if variable != ABSENT]
        positional = positional and bool(variables)
        found += [variable if positional else f"{port}={variable}" for variable in variables]
    return found


def run(node: CheckedNode, wires: Wires, names: Names) -> list[str]:
    """The lines that call a node as a whole; what it gives become wires."""
    calls = arguments(node, partial(value, wires))
    got = results(node, wires, names)
    if node.repeated:
        return loop(node, got, calls, names)
    return [f"{', '.join(got.values())} = self.{node.name}({', '.join(calls)})  # {types(node)}"]


def results(node: CheckedNode, wires: Wires, names: Names, keep: Iterable[str] | None = None) -> dict[str, str]:
    """New variables for what a node gives (or for what of it is kept), by output; they become wires."""
    found: dict[str, str] = {}
    for i, output in enumerate(node.outputs):
        if keep is None or output in keep:
            found[output] = names.new(node.name if i == 0 else f"{node.name}_{output}")
            wires[(node.name, output)] = found[output]
            if i == 0:
                wires[(node.name, "")] = found[output]
    return found


def first_values(
    node: CheckedNode, given: Mapping[str, str], calls: list[str], ports: list[str]
) -> tuple[list[str], list[str]]:
    """Lines that give the carried variables of a repeated block their first values, and the arguments inside the loop.

    `calls` are the arguments of the first instance, one for each of `ports`.
    """
    lines: list[str] = []
    inside = list(calls)
    for output, port in node.carried.items():
        if output in given:
            at = ports.index(port)
            first = calls[at].rpartition("=")[2]
            lines.append(f"{given[output]} = {first}")
            inside[at] = calls[at].removesuffix(first) + given[output]
    return lines, inside


def loop(node: CheckedNode, given: Mapping[str, str], calls: list[str], names: Names) -> list[str]:
    """A repeated block: carried outputs go from instance to instance, the others are collected and stacked."""
    instance = names.new(node.node.use)
    lines, inside = first_values(node, given, calls, list(node.feeds))
    stacked = {output: variable for output, variable in given.items() if output not in node.carried}
    each = {output: names.new(f"each_{variable}") for output, variable in stacked.items()}
    targets = [each.get(output, variable) for output, variable in given.items()]
    lines += [f"{variable} = []" for variable in stacked.values()]
    lines.append(f"for {instance} in self.{node.name}:")
    lines.append(f"{INDENT}{', '.join(targets)} = {instance}({', '.join(inside)})  # {types(node)}")
    lines += [f"{INDENT}{variable}.append({each[output]})" for output, variable in stacked.items()]
    lines += [f"{variable} = torch.stack({variable})" for variable in stacked.values()]
    return lines


def types(node: CheckedNode) -> str:
    """What a node gives, for the comment behind its line."""
    return ", ".join(map(str, node.outputs.values()))


def tensors(count: int) -> str:
    """The annotation of one tensor or of several."""
    return "Tensor" if count == 1 else f"tuple[{', '.join(['Tensor'] * count)}]"


def in_tuple(parts: list[str]) -> str:
    """The text of a tuple."""
    return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"


def camel(name: str) -> str:
    """The name of a class: `two_words` is `TwoWords`."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", name) if part)


def indent(lines: Iterable[str]) -> list[str]:
    """The lines of a body."""
    return [INDENT + line if line else line for line in lines]
