"""The models of others that we are measured against."""

from typing import Any

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
