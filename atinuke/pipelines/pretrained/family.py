"""A family of pretrained models as data: which graph it is, what its config.json means, what its tensors are called.

One strict YAML file a family; everything works both ways.

```yaml
family: 1                        # the version of this format
name: gpt2
graph: gpt2                      # a graph file beside this one, or the name of a graph that ships
model_type: gpt2                 # as in config.json; or a list
architectures:                   # the names in config.json; the outputs of each, and the wires of the graph they are
  GPT2LMHeadModel: {outputs: {logits: O}}
  GPT2Model: {outputs: {last_hidden_state: norm}, prefix: false}
  GPT2ForTokenClassification:    # what only it has: nodes as in a graph file, and dims that these use
    dims: {classes: num_labels}
    nodes: {tagger: {use: head.classification, in: norm, with: {d_model: $d_model, classes: $classes}}}
    outputs: {logits: tagger}
prefix: transformer.             # what the names of the body's tensors begin with, but for `prefix: false`
aliases: {old_name: new.name}    # keys of config.json that were called differently once
defaults: {n_inner: "${4*n_embd}"}     # what a key means that is missing or null
dims: {d_model: n_embd}          # dims of the graph: expressions in keys (`rope.theta` is a nested key)
axes: {sequence: n_positions}    # the largest size of an axis of the graph; or both ends, [lowest, largest]
requires: {scale_attn_weights: true}   # a key that must have this value if it is there, or one of a list
choices:                         # a key whose value changes the graph: every value that is known, and what it does
  activation_function:
    gelu_new: {}
    relu: {swap: {layer.F: feedforward.relu}}      # as --swap; settings that both have are kept
  tie_word_embeddings:
    true: {}
    false: {tie: {O.weight: null}}                 # a tie of the graph undone; or made: {O.weight: E.weight}
  sliding_window: {null: {}}     # `null`, as a choice, is no missing key: that means its default
ignored: [summary_*]             # further keys that change nothing that is computed
tensors:                         # ours: theirs
  E.weight: transformer.wte.weight
  stack.#.norm1.*: transformer.h.#.ln_1.*
  stack.#.H.qkv.*: {of: transformer.h.#.attn.c_attn.*, transpose: true}
buffers: [transformer.h.#.attn.bias]   # tensors of theirs that may be there and are not read
copies: {cls.decoder.bias: cls.bias}   # a second name of theirs for one tensor: may be missing, must be equal
renames: {gamma: weight}         # the last part of a name, as it was called once
```

Only the part of the graph that an architecture's outputs depend on is built; a rule for the rest is passed over. The
names of an architecture without the prefix are the same without it, and a file may lack it (or have it) as a whole.

In names of tensors `#` is the number of a layer and `*` any rest, the same on both sides. A key of config.json that is
not named in the file is refused, unless it is false, zero, null or empty, or is one that every model has.

What preprocessor_config.json says has keys that begin with `preprocessor.`; those that no line names are not looked at.
`num_labels` is the number of labels that `id2label` names.

`a + b + c` on a side are several tensors whose values stand one after another, as in a fused matrix. Theirs are parts
of equal size, unless `sizes` says how many rows each has. `zeros` stands for a part that they do not have: it is filled
with zeros, and refused on the way back if it has become anything else. Further keys, with sizes as expressions in dims:

    transpose: true              their matrices are transposed (GPT-2's Conv1D); vectors stay
    view: [heads, 3, -1]         theirs has these axes inside (-1: what is left),
    order: [1, 0, 2]             which ours has in this order
    shape: [1, 1, d_model]       theirs has another shape, with the same numbers in the same order

Every parameter of the graph must be named by one rule; buffers may be. A rule for a parameter that is tied to another
in the graph names one that may be missing in their file; if it is there it must be equal.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from atinuke import families
from atinuke.core import dims
from atinuke.core.document import parse, read_text
from atinuke.core.errors import AtinukeError, fail
from atinuke.core.files import is_file
from atinuke.core.names import close
from atinuke.pipelines.section import Section, read

ZEROS = "zeros"

EVERY_MODEL = frozenset(
    """
    _name_or_path _num_labels architectures auto_map bos_token_id chunk_size_feed_forward decoder_start_token_id
    dtype eos_token_id finetuning_task id2label initializer_range is_encoder_decoder label2id model_type num_labels
    output_attentions output_hidden_states output_past pad_token_id preprocessor problem_type return_dict
    task_specific_params tokenizer_class torch_dtype torchscript transformers_version use_bfloat16 use_cache
    """.split()  # noqa: SIM905 - a list literal of these would hide them
)
"""Keys of config.json that change nothing that is computed."""


def dotted(text: str) -> str:
    """An expression whose names may have dots in them, with `__` instead."""
    return re.sub(r"(?<=[A-Za-z0-9_])\.(?=[A-Za-z_])", "__", text)


def _expression(value: object) -> str:
    """An expression in names, as text.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be a number or an expression, but is `{value}`")
    dims.parse(dotted(str(value)))
    return str(value)


def _plain(value: object) -> object:
    if isinstance(value, list | dict):
        raise ValueError(f"must be a plain value, but is `{value}`")
    return value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _ends(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _rule(value: object) -> object:
    return {"of": value} if isinstance(value, str) else value


def _pattern(name: str) -> str:
    """A side of a rule.

    Raises:
        ValueError: it is no name of tensors.
    """
    for part in name.split(" + "):
        if not re.fullmatch(r"[\w.#]+(\.\*|\*)?", part):
            raise ValueError(f"`{part}` is no name of a tensor (letters, digits, `_`, `.`, `#` and a last `*`)")
    return name


Expression = Annotated[Any, AfterValidator(_expression)]
Plain = Annotated[Any, AfterValidator(_plain)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Ends = Annotated[tuple[Expression, ...], BeforeValidator(_ends), Field(strict=False, min_length=1, max_length=2)]
Sizes = Annotated[tuple[Expression, ...], Field(strict=False)]


class Architecture(Section):
    """What one class of transformers has of the family's graph: its outputs and the wires that they are, nodes and dims
    that it adds to the graph, whether the body's names have the family's prefix, and tensors that it may have and that
    are not read."""

    dims: dict[str, Expression] = Field(default_factory=dict)
    nodes: dict[str, Any] = Field(default_factory=dict)
    outputs: Annotated[dict[str, str], Field(min_length=1)]
    prefix: bool = True
    ignored: Annotated[tuple[Pattern, ...], Field(strict=False)] = ()


class Effect(Section):
    """What a value of config.json does to the graph."""

    swap: dict[str, str] = Field(default_factory=dict)
    tie: dict[str, str | None] = Field(default_factory=dict)


class Rule(Section):
    """What tensors of ours are called there, and how their numbers lie."""

    of: Pattern
    transpose: bool = False
    sizes: Sizes = ()
    view: Sizes = ()
    order: Annotated[tuple[int, ...], Field(strict=False)] = ()
    shape: Sizes | None = None

    @property
    def theirs(self) -> tuple[str, ...]:
        return tuple(self.of.split(" + "))


class Family(Section):
    """A map file; see the module for what each key means."""

    family: Literal[1]
    name: Annotated[str, Field(pattern=r"^[A-Za-z][\w.-]*$")]
    graph: str
    model_type: Annotated[tuple[str, ...], BeforeValidator(_listed), Field(strict=False, min_length=1)]
    architectures: Annotated[dict[str, Architecture], Field(min_length=1)]
    prefix: str = ""
    aliases: dict[str, str] = Field(default_factory=dict)
    defaults: dict[str, Plain] = Field(default_factory=dict)
    dims: dict[str, Expression]
    axes: dict[str, Ends] = Field(default_factory=dict)
    requires: dict[str, Any] = Field(default_factory=dict)
    choices: dict[str, dict[str, Effect]] = Field(default_factory=dict)
    ignored: Annotated[tuple[str, ...], Field(strict=False)] = ()
    tensors: dict[Pattern, Annotated[Rule, BeforeValidator(_rule)]]
    buffers: Annotated[tuple[Pattern, ...], Field(strict=False)] = ()
    copies: dict[str, str] = Field(default_factory=dict)
    renames: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sides_agree(self) -> Self:
        for written, rule in self.tensors.items():
            sides = [*written.split(" + "), *(name for name in rule.theirs if name != ZEROS)]
            for side in sides:
                if re.findall("[#*]", side) != re.findall("[#*]", sides[0]):
                    raise ValueError(f"has a rule where `{side}` has other `#` and `*` than `{sides[0]}`")
        return self

    def of(self, architecture: str) -> Self:
        """The family with the dims that only this architecture has."""
        return self.model_copy(update={"dims": {**self.dims, **self.architectures[architecture].dims}})

    def architecture(self, config: dict[str, Any], where: Path) -> str:
        """The architecture that a config.json names.

        Raises:
            AtinukeError: it is of another family, or of an architecture that this one does not have.
        """
        if config.get("model_type") not in self.model_type:
            raise fail(
                f"is not of the family `{self.name}`",
                f"expected `model_type` {' or '.join(f'`{one}`' for one in self.model_type)}",
                f"got `{config.get('model_type')}`",
                where=str(where),
                fix="name the family file of this model with --family",
            )
        named = config.get("architectures") or [None]
        if len(named) == 1 and named[0] in self.architectures:
            return str(named[0])
        raise fail(
            f"has an architecture that family `{self.name}` does not know",
            f"got `architectures` {config.get('architectures')}",
            where=str(where),
            fix=close(str(named[0]), self.architectures),
        )


def load_family(file: Path) -> Family:
    """The family in a map file, its graph's path made absolute where it lies beside the file. The graph is looked for
    when it is wanted: a model folder keeps the map, and has a graph of its own.

    Raises:
        AtinukeError: the file cannot be read, or anything in it is wrong; carries every mistake.
    """
    found = read(Family, parse(read_text(file), str(file)))
    beside = file.resolve().parent / found.graph
    return found.model_copy(update={"graph": str(beside)}) if is_file(beside) else found


def family_of(config: dict[str, Any], where: Path) -> Path:
    """The map file of the shipped family that has the `model_type` of a config.json.

    Raises:
        AtinukeError: no family has.
    """
    known = dict(_shipped())
    if config.get("model_type") in known:
        return known[config["model_type"]]
    raise fail(
        "is of a family that does not ship",
        f"got `model_type` `{config.get('model_type')}`",
        f"expected one of {', '.join(sorted(known))}",
        where=str(where),
        fix="write a family file and name it with --family (docs/pretrained.md)",
    )


def _shipped() -> Iterator[tuple[str, Path]]:
    for name in families.names():
        path = families.path(name)
        try:
            yield from ((model_type, path) for model_type in load_family(path).model_type)
        except AtinukeError as error:  # the package itself is damaged
            raise fail(f"the shipped family `{name}` is damaged", str(error), where=str(path)) from None
