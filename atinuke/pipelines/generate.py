"""Continues texts: a batch of prompts in, their continuations out, while they are written if wanted."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from atinuke.compile.inductor import compile_step
from atinuke.core.errors import fail, raise_all
from atinuke.core.names import close
from atinuke.pipelines.beams import Found, search
from atinuke.pipelines.constrained import Guided, dead_end, guides
from atinuke.pipelines.decode import Decoder
from atinuke.pipelines.sampling import Sampler, Settings, mute
from atinuke.runtime.sampling import Muted
from atinuke.runtime.text import Continuation, OnText, Row, misfits, write
from atinuke.runtime.tokenizer import Tokenizer


def generate(
    model: nn.Module,
    tokenizer: Tokenizer,
    prompts: Sequence[str | Sequence[int]],
    settings: Settings,
    context: int,
    on_text: OnText | None = None,
    compiled: bool = False,
    given: Mapping[str, Tensor] | None = None,
    begin: Sequence[int] | None = None,
    muted: Muted | None = None,
) -> list[Continuation]:
    """Continues each prompt, a text or its tokens, by at most `settings.max_new_tokens` tokens.

    `given` is what the model's `prepare` reads, such as the source of an encoder-decoder, a row for each prompt. A text
    begins with the tokens `begin`, so that a prompt may be empty; they count among the tokens of the text. Where none
    are said it is the tokenizer's end-of-text token for a model that reads anything given, and nothing for others. What
    is `muted` is not written.

    `model` has `state` and `step`, as a built graph has; `context` is the longest text it reads, in tokens. A row does
    not depend on the others. `on_text(row, text)` gets each piece of text as soon as it is certain: whole characters,
    and nothing that may turn out to be part of a stop string. `compiled` compiles the step first, which takes half a
    minute and makes long texts faster.

    Raises:
        AtinukeError: the model has no step form or no `logits`, what it reads is not given, a prompt is empty or does
            not fit into the context together with the new tokens, the logits are not numbers, or what the texts should
            match is not understood or cannot be met.
    """
    given = given or {}
    encoded = [tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt) for prompt in prompts]
    _require_step(model)
    reads = _require_given(model, given, len(prompts))
    if begin is None:
        begin = [tokenizer.end_of_text] if reads else []
    begun = [[*begin, *prompt] for prompt in encoded]
    raise_all(misfits(begun, settings, context))
    if not encoded:
        return []
    guiding = guides(settings, tokenizer, len(encoded))
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            step = compile_step(model) if compiled else None
            if settings.beams > 1:
                found = search(model, begun, given, settings, tokenizer.ends, step, guiding, muted)
                written = [
                    _searched(number, texts, encoded[number], tokenizer, settings, on_text)
                    for number, texts in enumerate(found)
                ]
            else:
                rows = [Row(number, prompt, tokenizer, settings.stop, on_text) for number, prompt in enumerate(encoded)]
                decoder = Decoder(model, begun, step, given)
                sampler = Sampler(settings, begun, decoder.device)
                chosen = Guided(sampler, guiding) if guiding else sampler
                said = (lambda logits, step: chosen(mute(logits, muted, step), step)) if muted else chosen
                for _ in write(decoder, said, rows, settings.max_new_tokens):
                    pass
                written = [row.continuation() for row in rows]
                for number, guide in enumerate(guiding or ()):
                    if not guide.whole:
                        written[number] = replace(written[number], reason="unfinished")
    finally:
        model.train(training)
    for number, guide in enumerate(guiding or ()):
        guide.require(written[number])
    return written


def _searched(
    number: int,
    found: Sequence[Found],
    prompt: Sequence[int],
    tokenizer: Tokenizer,
    settings: Settings,
    on_text: OnText | None,
) -> Continuation:
    """The best text of a row, with the others; it is shown once it is found."""
    if not found:
        raise dead_end(number)
    texts: list[Continuation] = []
    for one in found:
        row = Row(number, prompt, tokenizer, settings.stop, None if texts else on_text)
        for token in one.tokens:
            row.add(token)
        row.finish("length" if one.whole else "unfinished")
        texts.append(replace(row.continuation(), score=one.score))
    return replace(texts[0], others=tuple(texts[1:]))


def _require_step(model: nn.Module) -> None:
    if not callable(getattr(model, "step", None)) or not callable(getattr(model, "state", None)):
        raise fail(
            "this model cannot generate",
            "its graph has no step form",
            fix="use a graph that reads tokens and whose components all have step()",
        )


def _require_given(model: nn.Module, given: Mapping[str, Tensor], rows: int) -> bool:
    """Whether the model reads anything beside the text; refuses what is missing, unknown or of another batch."""
    prepare = getattr(model, "prepare", None)
    reads = inspect.signature(prepare).parameters if prepare else {}
    for name, tensor in given.items():
        if name not in reads:
            raise fail(f"the model's text does not depend on `{name}`", fix=close(name, reads))
        if len(tensor) != rows:
            raise fail(f"`{name}` has {len(tensor):,} rows for {rows:,} prompts", fix="give one for each prompt")
    for name, parameter in reads.items():
        if name not in given and parameter.default is parameter.empty:
            raise fail(f"the model needs `{name}`", f"given: {', '.join(given) or 'nothing'}", fix=f"give it `{name}`")
    return bool(reads)
