"""Small models of transformers with random weights, one of each kind that a shipped family knows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

TOKENS = 40
BERT = {
    "hidden_size": 24,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 30,
}
DISTILBERT = {"dim": 24, "n_heads": 3, "n_layers": 2, "hidden_dim": 20, "max_position_embeddings": 30}
GPT2 = {"n_embd": 24, "n_head": 3, "n_layer": 2, "n_positions": 30, "n_inner": 20}
LABELS = {"id2label": {0: "bad", 1: "good", 2: "neither"}, "label2id": {"bad": 0, "good": 1, "neither": 2}}
LLAMA = {
    "hidden_size": 24,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 30,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


@dataclass(frozen=True)
class Kind:
    """A class of transformers and its configuration; `padding` is the token that pads."""

    architecture: str
    config: Mapping[str, Any] = field(default_factory=dict)
    padding: int = 0

    def model(self) -> nn.Module:
        """The model, whose biases and gains are no zeros and ones, which would hide mistakes."""
        torch.manual_seed(0)
        cls = getattr(transformers, self.architecture)
        ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": self.padding}
        model = cls(cls.config_class(vocab_size=TOKENS, **ends, **self.config)).eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
        return model

    def save(self, folder: Path) -> nn.Module:
        model = self.model()
        model.save_pretrained(folder)
        return model


DECODERS = {
    "gpt2": Kind("GPT2LMHeadModel", GPT2),
    "gpt2 body": Kind("GPT2Model", GPT2),
    "gpt2 relu, untied": Kind("GPT2LMHeadModel", {**GPT2, "activation_function": "relu", "tie_word_embeddings": False}),
    "llama": Kind("LlamaForCausalLM", LLAMA),
    "llama body": Kind("LlamaModel", LLAMA),
    "llama tied, with biases": Kind(
        "LlamaForCausalLM", {**LLAMA, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}
    ),
    "llama linear": Kind(
        "LlamaForCausalLM", {**LLAMA, "rope_parameters": {"rope_type": "linear", "rope_theta": 50.0, "factor": 2.0}}
    ),
    "llama wide heads": Kind("LlamaForCausalLM", {**LLAMA, "head_dim": 6}),
    "mistral": Kind("MistralForCausalLM", {**LLAMA, "head_dim": 6, "sliding_window": None}),
    "mistral body": Kind("MistralModel", {**LLAMA, "sliding_window": 4096}),
    "qwen2": Kind("Qwen2ForCausalLM", {**LLAMA, "tie_word_embeddings": True}),
    "qwen2 body": Kind("Qwen2Model", LLAMA),
    "llama 3": Kind("LlamaForCausalLM", {**LLAMA, "rope_parameters": LLAMA3, "rms_norm_eps": 1e-3}),
}
ENCODERS = {
    "bert": Kind("BertModel", BERT),
    "bert masked": Kind("BertForMaskedLM", {**BERT, "layer_norm_eps": 1e-3}),
    "bert gelu_new": Kind("BertForMaskedLM", {**BERT, "hidden_act": "gelu_new"}),
    "roberta": Kind("RobertaModel", {**BERT, "type_vocab_size": 1}, padding=1),
    "roberta masked": Kind("RobertaForMaskedLM", BERT, padding=3),
    "bert labels": Kind("BertForSequenceClassification", {**BERT, **LABELS}),
    "bert tags": Kind("BertForTokenClassification", {**BERT, **LABELS, "classifier_dropout": 0.3}),
    "bert answers": Kind("BertForQuestionAnswering", BERT),
    "roberta labels": Kind("RobertaForSequenceClassification", {**BERT, "num_labels": 1}, padding=1),
    "roberta tags": Kind("RobertaForTokenClassification", BERT, padding=1),
    "roberta answers": Kind("RobertaForQuestionAnswering", BERT, padding=1),
    "distilbert labels": Kind("DistilBertForSequenceClassification", {**DISTILBERT, **LABELS}),
    "distilbert tags": Kind("DistilBertForTokenClassification", DISTILBERT),
    "distilbert answers": Kind("DistilBertForQuestionAnswering", DISTILBERT),
    "xlm-roberta": Kind("XLMRobertaForMaskedLM", BERT, padding=1),
    "distilbert": Kind("DistilBertModel", DISTILBERT),
    "distilbert masked": Kind("DistilBertForMaskedLM", DISTILBERT),
    "distilbert relu, untied": Kind(
        "DistilBertForMaskedLM", {**DISTILBERT, "activation": "relu", "tie_word_embeddings": False}
    ),
}
