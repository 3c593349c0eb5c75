"""The models of others that we are measured against."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel


def gpt2(vocabulary: int, d_model: int, layers: int, heads: int, context: int = 1024, **others: Any) -> GPT2LMHeadModel:
    """Hugging Face's GPT-2 of these sizes, which ends at no token; `others` are further fields of its configuration."""
    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=d_model,
        n_layer=layers,
        n_head=heads,
        n_positions=context,
        bos_token_id=None,
        eos_token_id=None,
        **others,
    )
    return GPT2LMHeadModel(config)


def dropouts(rate: float) -> dict[str, float]:
    """The same dropout everywhere in a GPT-2."""
    return {"embd_pdrop": rate, "attn_pdrop": rate, "resid_pdrop": rate}


def bert_weights(bert: nn.Module) -> dict[str, Tensor]:
    """The weights of transformers' BertModel by the names of the shipped graph `encoder`."""
    old, new = bert.state_dict(), {}
    for name, node in (("word", "E"), ("token_type", "S"), ("position", "P")):
        new[f"{node}.weight"] = old[f"embeddings.{name}_embeddings.weight"]
    pairs = {"H.output": "attention.output.dense", "norm1": "attention.output.LayerNorm"}
    pairs |= {"F.up": "intermediate.dense", "F.down": "output.dense", "norm2": "output.LayerNorm"}
    for kind in ("weight", "bias"):
        new[f"norm.{kind}"] = old[f"embeddings.LayerNorm.{kind}"]
        for layer in range(bert.config.num_hidden_layers):
            theirs = f"encoder.layer.{layer}"
            qkv = [old[f"{theirs}.attention.self.{one}.{kind}"] for one in ("query", "key", "value")]
            new[f"stack.{layer}.H.qkv.{kind}"] = torch.cat(qkv)
            for ours, name in pairs.items():
                new[f"stack.{layer}.{ours}.{kind}"] = old[f"{theirs}.{name}.{kind}"]
    return new
