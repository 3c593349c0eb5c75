"""The components that come with Atinuke, one kind a file.

They are registered through the same hook as everybody else's, and listing them imports none of them.
"""

from collections.abc import Iterable

from atinuke.core.component import Component, Rewrite
from atinuke.core.hookspecs import hookimpl
from atinuke.core.rewrite import PRUNE, VOCABULARY_LOSS


@hookimpl
def atinuke_components() -> Iterable[Component]:
    for name, target, summary, *strategy in COMPONENTS:
        yield Component(name, f"{__name__}.{target}", summary, *(f"{__name__}.strategies:{one}" for one in strategy))


@hookimpl
def atinuke_rewrites() -> Iterable[Rewrite]:
    yield VOCABULARY_LOSS
    yield PRUNE


# name, module:class, summary, and the strategy that draws its settings where they do not go together at random
COMPONENTS = (
    ("text.embedding", "text:TextEmbedding", "A learned vector for every token", "text_embedding"),
    ("position.sinusoidal", "position:SinusoidalPosition", "Adds the sines and cosines of Vaswani et al."),
    (
        "position.layerwise",
        "position:LayerwisePosition",
        "P_l: adds a sinusoidal encoding of each layer's own",
        "layerwise",
    ),
    ("position.learned", "position:LearnedPosition", "Adds a learned vector for every position"),
    ("position.rotary", "position:RotaryPosition", "Rotations of queries and keys, for attention.self", "rotary"),
    ("position.alibi", "position:AlibiPosition", "A slope for every head, for attention.self"),
    ("attention.self", "attention:SelfAttention", "Multi-head attention of a text to itself", "self_attention"),
    ("feedforward.gelu", "feedforward:GELUFeedForward", "Two linear maps with GELU between them"),
    ("feedforward.relu", "feedforward:ReLUFeedForward", "Two linear maps with ReLU between them"),
    ("feedforward.swiglu", "feedforward:SwiGLUFeedForward", "Linear maps with a SiLU gate"),
    ("feedforward.experts", "experts:MixtureOfExperts", "A mixture of experts with top-k routing", "experts"),
    ("norm.layer", "norm:LayerNorm", "Layer normalisation of the last axis"),
    ("norm.rms", "norm:RMSNorm", "Root mean square normalisation of the last axis"),
    ("add", "structure:Add", "The sum of any number of wires"),
    ("concat", "structure:Concat", "Two texts a row, one after the other"),
    ("dropout", "structure:Dropout", "Zeroes values at random while training", "dropout"),
    ("identity", "structure:Identity", "Passes its input on"),
    ("mean", "structure:Mean", "The mean of all values"),
    ("head.vocabulary", "head:VocabularyHead", "The score of every token of the vocabulary", "vocabulary"),
    ("head.vocabulary_loss", "loss:VocabularyLoss", "Cross-entropy over the vocabulary, in chunks", "vocabulary"),
)
