"""The values that a graph's expressions may refer to, and the settings of its nodes worked out from them."""

from collections.abc import Mapping
from typing import Any

import sympy

from atinuke.core import dims
from atinuke.core.dims import Size, UnknownName
from atinuke.core.errors import Place, Report
from atinuke.core.fit import Type
from atinuke.core.graph import BROKEN, Graph, Input, Node
from atinuke.core.names import close
from atinuke.core.signature import Signature
from atinuke.core.spec import reference

Scope = Mapping[str, Any]


def dim_values(graph: Graph, report: Report, overrides: Scope | None = None) -> dict[str, Any]:
    """The values of the dims, in the order of the file; a block's `with` may give other values."""
    values: dict[str, Any] = {}
    for name, written in graph.dims.items():
        value: Any = (overrides or {}).get(name, written)
        if isinstance(value, str):
            try:
                value = work_out(value, values)
            except (UnknownName, ValueError) as error:
                where = graph.place(f"dims.{name}")
                report.wrong(where, f"dim `{name}` has no value", str(error), fix=_hint(error, values))
                value = BROKEN
        values[name] = value
    return values


def input_type(name: str, value: Input, scope: Scope, report: Report) -> Type | None:
    """The type of an input of the graph."""
    sizes: list[Size] = []
    if not value.dtype:
        return None
    for text in value.shape:
        try:
            size = work_out(text, scope)
        except (UnknownName, ValueError) as error:
            report.wrong(
                value.where,
                f"input `{name}` has an unknown size `{text}`",
                str(error),
                fix=_hint(error, scope)
                or ("declare it under dims or axes" if isinstance(error, UnknownName) else None),
            )
            return None
        if size is BROKEN:
            return None
        sizes.append(sympy.sympify(size))
    return Type(value.dtype, tuple(sizes))


def settings_of(title: str, node: Node, signature: Signature, scope: Scope, report: Report) -> dict[str, Any] | None:
    """The settings of a node, defaults and all; None where something is wrong with them."""
    given: dict[str, Any] = {}
    good = True
    for key, value in node.settings.items():
        where = node.place(f"with.{key}")
        if key not in signature.settings:
            fix = close(key, signature.settings) or f"{node.use} has no settings"
            report.wrong(where, f"{title}: {node.use} has no setting `{key}`", fix=fix)
            good = False
            continue
        given[key] = resolve(scope, report, f"{title}: setting `{key}`", value, where)
        good = good and given[key] is not BROKEN
    if not good:
        return None
    values, wrong = signature.validate(given)
    for text in wrong:
        key = text.split("`")[1]
        report.wrong(node.place(f"with.{key}"), f"{title}: {text}", fix=f"see `atinuke plugins show {node.use}`")
    return None if wrong else values


def resolve(scope: Scope, report: Report, what: str, value: Any, where: Place | None) -> Any:
    """A setting's value with `$name` and `${expression}` replaced; BROKEN when that fails."""
    if isinstance(value, tuple):
        items = [resolve(scope, report, what, item, where) for item in value]
        return BROKEN if BROKEN in items else items
    text = reference(value) if isinstance(value, str) else None
    if text is None:
        return value
    if text in scope:
        return scope[text]
    try:
        return work_out(text, scope)
    except UnknownName as error:
        report.wrong(where, f"{what}: `{error.name}` is not a dim", fix=close(error.name, scope))
    except ValueError as error:
        report.wrong(where, f"{what} cannot be worked out", str(error))
    return BROKEN


def names_index(written: Any) -> bool:
    """Whether a setting as it is written, or a part of it, names `$index`."""
    if isinstance(written, tuple):
        return any(map(names_index, written))
    text = reference(written) if isinstance(written, str) else None
    return text is not None and "index" in dims.names(dims.parse(text))


def work_out(text: str, scope: Scope) -> Any:
    """The value of an expression; BROKEN when it depends on something broken.

    Raises:
        UnknownName: it depends on a name that is not in scope.
        ValueError: it has no value.
    """
    tree = dims.parse(text)
    if any(scope.get(name) is BROKEN for name in dims.names(tree)):
        return BROKEN
    return dims.evaluate(tree, scope)


def _hint(error: Exception, known: Mapping[str, Any]) -> str | None:
    return close(error.name, known) if isinstance(error, UnknownName) else None
