"""Our decoders under the Language Model Evaluation Harness (Gao et al., 2024), which has to be installed beside us.

Importing this file registers the model `atinuke` with it:

    import lm_eval
    import atinuke.pipelines.harness

    lm_eval.simple_evaluate(model="atinuke", model_args="run=runs/demo/run", tasks=["lambada_openai"])

or, as its own command with its own arguments, `atinuke harness run --model atinuke --model_args run=...`.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from atinuke.core.errors import fail
from atinuke.pipelines.generate import generate
from atinuke.pipelines.likelihood import Pair, likelihoods
from atinuke.pipelines.run import open_run
from atinuke.pipelines.sampling import Settings
from atinuke.runtime.sampling import Muted
from atinuke.runtime.tokenizer import Tokenizer

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError:
    raise fail("the Language Model Evaluation Harness is not installed", fix="pip install 'atinuke[harness]'") from None

NEW_TOKENS = 256  # where a task does not say, as for the harness's own models


@register_model("atinuke")
class Harnessed(TemplateLM):  # type: ignore[misc] # its types are not known where it is not installed
    """A run, or a model folder, as the harness asks for it: `batch_size` rows at a time.

    Where nothing stands before what is scored, the model's beginning of text does, or its end of text where it has
    none, as for the harness's own models of this kind. Of whole texts these foretell what a tokenizer puts in front,
    too; so does a model folder, but no run, which has never learnt it.

    Raises:
        AtinukeError: there is none, it writes no texts, or it reads something beside them.
    """

    def __init__(self, run: str | None = None, batch_size: int | str = 1, device: str | None = None, **_: Any) -> None:
        if run is None:
            raise fail("no model is named", fix="say `run=FOLDER` by --model_args")
        found = open_run(Path(run))
        if found.given:
            raise fail(
                "the harness gives nothing but texts",
                f"the model needs: {', '.join(found.given)}",
                where=run,
                fix="name a decoder",
            )
        if device is None or (device == "cuda:0" and not torch.cuda.is_available()):
            device = "cpu"  # its command says `cuda:0` where nobody said anything
        self._set(found.model.to(device), found.tokenizer, found.context, run, batch_size)
        self._begin, self._prefix, self._muted = found.begin, found.prefix, found.muted
        self._foretells_begin = found.made is None

    @classmethod
    def of(
        cls, model: nn.Module, tokenizer: Tokenizer, context: int, name: str = "model", batch_size: int | str = 1
    ) -> "Harnessed":
        """A model that is there already; `context` is the longest text that it reads, in tokens."""
        found = cls.__new__(cls)
        found._set(model, tokenizer, context, name, batch_size)
        return found

    def _set(self, model: nn.Module, tokenizer: Tokenizer, context: int, name: str, batch_size: int | str) -> None:
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise fail(f"a batch of `{batch_size}`", where="batch_size", fix="give a whole number of at least 1")
        self.model, self.encoder, self.max_length = model.eval(), tokenizer, context
        self.batch_size = int(batch_size)
        self._name = name
        self._begin, self._prefix, self._muted = (), tokenizer.end_of_text, Muted()
        self._foretells_begin = False
        self._device = next(model.parameters()).device

    @property
    def eot_token_id(self) -> int:
        return self.encoder.end_of_text

    @property
    def prefix_token_id(self) -> int:
        return self._prefix

    @property
    def tokenizer_name(self) -> str:
        return f"{self._name}-{self.encoder.fingerprint[:16]}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """A text's tokens, behind what the model's texts begin with unless that is not wanted."""
        return [*(() if add_special_tokens is False else self._begin), *self.encoder.encode(string)]

    def _loglikelihood_tokens(self, requests: Sequence[tuple[Any, Any, Any]], **_: Any) -> list[tuple[float, bool]]:
        found = likelihoods(
            self.model, [(context, text) for _, context, text in requests], self.max_length, self.batch_size
        )
        for (asked, _, _), answer in zip(requests, found, strict=True):
            if asked is not None:
                self.cache_hook.add_partial("loglikelihood", asked, answer)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        windows: list[Pair] = []
        owners: list[int] = []
        for number, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0], add_special_tokens=self._foretells_begin)
            for window in get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, context_len=1):
                windows.append(make_disjoint_window(window))
                owners.append(number)
        totals = [0.0 for _ in requests]
        for owner, (total, _) in zip(
            owners, likelihoods(self.model, windows, self.max_length, self.batch_size), strict=True
        ):
            totals[owner] += total
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        found: dict[int, str] = {}
        groups: dict[Settings, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(self._settings(request.args[1]), []).append(number)
        for settings, numbers in groups.items():
            room = self.max_length - settings.max_new_tokens
            if room < 1:
                raise fail(
                    f"{settings.max_new_tokens:,} new tokens are wanted",
                    f"the model reads {self.max_length:,} tokens in all",
                    fix="ask for less by `max_gen_toks`",
                )
            # As for the harness's own models, what is too long loses its beginning; nothing at all begins a text.
            prompts = {n: self.tok_encode(requests[n].args[0])[-room:] or [self.prefix_token_id] for n in numbers}
            order = sorted(numbers, key=lambda number: -len(prompts[number]))
            for start in range(0, len(order), self.batch_size):
                some = order[start : start + self.batch_size]
                asked, muted = [prompts[n] for n in some], self._muted
                written = generate(self.model, self.encoder, asked, settings, self.max_length, begin=(), muted=muted)
                found |= {number: one.text for number, one in zip(some, written, strict=True)}
        for number, request in enumerate(requests):
            self.cache_hook.add_partial("generate_until", request.args, found[number])
        return [found[number] for number in range(len(requests))]

    def _settings(self, asked: Mapping[str, Any]) -> Settings:
        """What a task asks for, in our words; what we have no word for is refused by name."""
        known = normalize_gen_kwargs(dict(asked), NEW_TOKENS)
        draws = known.pop("do_sample", False)
        until = known.pop("until", None) or []
        stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
        temperature = known.pop("temperature", 0.0) or (1.0 if draws else 0.0)
        renamed = {"max_gen_toks": "max_new_tokens", "num_beams": "beams"}
        return Settings.read(
            temperature=temperature if draws else 0, stop=stop, **{renamed.get(k, k): v for k, v in known.items()}
        )


def command(arguments: Sequence[str]) -> None:
    """The harness's own command line."""
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["lm-eval", *arguments]
    cli_evaluate()
