"""A small random GPT-2 of transformers, and the shipped graph with its weights."""

from dataclasses import replace
from functools import cache

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from atinuke import graphs
from atinuke.compile.meta import MetaProbe
from atinuke.compile.module import build
from atinuke.core import spec
from atinuke.core.check import check
from atinuke.core.graph import frozen
from atinuke.core.registry import Registry
from atinuke.pipelines.tokenizer import Tokenizer

VOCAB = 257
BYTES = Tokenizer.train([], VOCAB)  # every token is a byte: most characters of the world take several


@cache
def pair() -> tuple[GPT2LMHeadModel, nn.Module]:
    """Theirs and ours, in float64, for texts of up to 128 tokens."""
    theirs = _theirs()
    return theirs, _ours(theirs)


def _theirs() -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=VOCAB,
        n_positions=128,
        n_embd=48,
        n_layer=3,
        n_head=4,
        initializer_range=0.4,
        bos_token_id=BYTES.end_of_text,
        eos_token_id=BYTES.end_of_text,
        pad_token_id=BYTES.end_of_text,
    )
    torch.manual_seed(1)
    return GPT2LMHeadModel(config).double().eval()


def _ours(theirs: GPT2LMHeadModel) -> nn.Module:
    """The shipped graph `gpt2` with the weights of transformers' model."""
    graph = spec.load(graphs.path("gpt2"))
    sizes = {"vocab_size": VOCAB, "d_model": 48, "heads": 4, "layers": 3, "length": 128}
    axes = {**graph.axes, "sequence": replace(graph.axes["sequence"], high=128)}
    graph = replace(graph, dims=frozen({**graph.dims, **sizes}), axes=frozen(axes))
    model = build(check(graph, Registry(), MetaProbe()), dtype=torch.float64)
    given = theirs.state_dict()
    names = {"E.weight": "transformer.wte.weight", "P.weight": "transformer.wpe.weight"}
    names |= {f"norm.{kind}": f"transformer.ln_f.{kind}" for kind in ("weight", "bias")}
    parts = {
        "norm1": "ln_1",
        "H.qkv": "attn.c_attn",
        "H.output": "attn.c_proj",
        "norm2": "ln_2",
        "F.up": "mlp.c_fc",
        "F.down": "mlp.c_proj",
    }
    for layer in range(3):
        for mine, other in parts.items():
            for kind in ("weight", "bias"):
                names[f"stack.{layer}.{mine}.{kind}"] = f"transformer.h.{layer}.{other}.{kind}"
    weights = {
        mine: given[other].T if other.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else given[other]
        for mine, other in names.items()
    }
    weights["O.weight"] = given["lm_head.weight"]
    model.load_state_dict(weights)
    return model.eval()
