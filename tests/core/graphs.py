"""Graphs that Hypothesis draws: any that can be written, whether or not they hold together."""

from hypothesis import strategies as st

from atinuke.core.graph import Block, Graph, Input, Node, Range, Wire, frozen
from atinuke.core.lora import frozen_lora
from atinuke.core.names import RESERVED

NAMES = (
    st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,8}", fullmatch=True)
    .filter(
        lambda name: (
            name not in RESERVED and name not in {"in", "is", "if", "or", "as", "and", "not", "def", "for", "del"}
        )
    )
    .filter(lambda name: not __import__("keyword").iskeyword(name))
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8).filter(
    lambda text: not text.startswith("$")
)
NUMBERS = st.one_of(st.integers(-(10**12), 10**12), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
REFERENCES = st.one_of(
    NAMES.map("${}".format), NAMES.map(lambda name: f"${{4*{name}+1}}"), NAMES.map(lambda n: f"${n}")
)
SCALARS = st.one_of(
    st.none(), NUMBERS, TEXTS, REFERENCES.filter(lambda t: (t.startswith("$") and t[1:2] != "{") or "}" in t)
)
SETTINGS = st.one_of(SCALARS, st.lists(SCALARS, max_size=3).map(tuple))
SIZES = st.one_of(NAMES, st.integers(1, 99).map(str), NAMES.map("2*{}".format))
WIRES = st.builds(Wire, NAMES, st.one_of(st.none(), NAMES))
USES = st.from_regex(r"([a-z]{1,5}:)?[a-z]{1,6}(\.[a-z]{1,6})?", fullmatch=True)

MAPS = st.sampled_from(["qkv", "output", "layers.0.up"])
UPDATES = st.fixed_dictionaries(
    {"rank": st.integers(1, 9) | st.just("$rank")},
    optional={
        "alpha": st.integers(1, 99) | st.floats(0.5, 99),
        "dropout": st.floats(0, 0.9),
        "parts": st.sampled_from([("q",), ("k", "v")]),
    },
)


@st.composite
def inputs(draw: st.DrawFn) -> dict[str, Input]:
    names = draw(st.lists(NAMES, unique=True, max_size=3))
    dtypes = st.sampled_from(["float", "int64", "bool", "float32", "uint8"])
    shapes = st.lists(SIZES, max_size=3).map(tuple)
    return {name: Input(draw(dtypes), draw(shapes), draw(st.booleans())) for name in names}


@st.composite
def nodes(draw: st.DrawFn, taken: set[str]) -> dict[str, Node]:
    names = draw(st.lists(NAMES.filter(lambda name: name not in taken), unique=True, max_size=4))
    return {
        name: Node(
            use=draw(USES),
            inputs=draw(
                st.one_of(
                    st.lists(WIRES, max_size=3).map(tuple),
                    st.dictionaries(NAMES, WIRES, min_size=1, max_size=3).map(frozen),
                )
            ),
            settings=frozen(draw(st.dictionaries(NAMES, SETTINGS, max_size=3))),
            repeat=draw(st.one_of(st.none(), st.integers(1, 9), NAMES.map("${}".format).map(lambda t: t))),
            tie=frozen(draw(st.dictionaries(NAMES, st.tuples(NAMES, NAMES).map(".".join), max_size=1))),
            lora=frozen_lora(draw(st.dictionaries(MAPS, UPDATES, max_size=2))),
        )
        for name in names
    }


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    given = draw(inputs())
    unnamed = WIRES.map(lambda wire: {"": wire})
    outputs = draw(st.one_of(unnamed, st.dictionaries(NAMES, WIRES, max_size=2)))
    return Block(frozen(given), frozen(draw(nodes(set(given)))), frozen(outputs))


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    dims = draw(st.dictionaries(NAMES, st.one_of(NUMBERS, NAMES, NAMES.map("4*{}".format)), max_size=4))
    axes = draw(
        st.dictionaries(
            NAMES.filter(lambda n: n not in dims), st.tuples(st.integers(1, 9), st.integers(9, 99)), max_size=2
        )
    )
    given = draw(inputs())
    return Graph(
        name=draw(st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,8}", fullmatch=True)),
        dims=frozen(dims),
        axes=frozen({name: Range(*ends) for name, ends in axes.items()}),
        inputs=frozen(given),
        nodes=frozen(draw(nodes(set(given)))),
        outputs=frozen(draw(st.dictionaries(NAMES, WIRES, max_size=2))),
        blocks=frozen(draw(st.dictionaries(NAMES, blocks(), max_size=2))),
    )
