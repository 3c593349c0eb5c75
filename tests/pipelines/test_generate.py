"""Generation against transformers, and its laws on a stand-in whose every logit depends on the whole text before it."""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.generate import Continuation, generate
from atinuke.pipelines.sampling import Settings
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.runtime.bytelevel import alphabet
from atinuke.runtime.tokenizer import END_OF_TEXT
from tests.pipelines import gpt2

LETTERS = "aab€𝄞"
BYTES, VOCAB = gpt2.BYTES, gpt2.VOCAB
GREEDY = Settings(temperature=0, max_new_tokens=24)
PROMPTS = ["A", "Ọ̀rọ̀ yìí gùn díẹ̀", "the same", "x" * 61, "the same"]


def cut_tokens(pieces: Sequence[bytes]) -> tuple[Tokenizer, list[int]]:
    """A tokenizer whose tokens are bytes cut anywhere, and `>` for a prompt; and the tokens of the pieces."""
    names = ["".join(alphabet()[byte] for byte in piece) for piece in pieces]
    tokens = {name: token for token, name in enumerate(dict.fromkeys([">", *names]))}
    inner = FastTokenizer(models.WordLevel(tokens, ">"))
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([END_OF_TEXT])
    return Tokenizer(inner.to_str()), [tokens[name] for name in names]


class Output(NamedTuple):
    logits: Tensor


def selected(logits: Tensor, last: Tensor | None) -> Tensor:
    """The logits of the wanted token of each row."""
    return logits if last is None else logits[torch.arange(len(logits)), last][:, None]


class Standin(nn.Module):
    """Logits from a number that depends on every token so far and its position."""

    def __init__(self, vocab_size: int = VOCAB) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.waves = nn.Parameter(torch.rand(vocab_size, generator=generator, dtype=torch.float64) * 40)
        self.calls = 0

    def state(self, batch: int, capacity: int) -> tuple[Tensor]:
        return (torch.full((batch, capacity), 99, dtype=torch.float64),)

    def step(
        self, input_ids: Tensor, position: Tensor, state: tuple[Tensor], last: Tensor | None = None
    ) -> tuple[Output, tuple[Tensor]]:
        assert not self.training
        self.calls += 1
        (cache,) = state
        places = position[:, None] + torch.arange(input_ids.shape[1])
        cache.scatter_(1, places, input_ids.double())
        sums = (cache * (torch.arange(cache.shape[1]) + 1.3).sqrt()).cumsum(1).gather(1, places)
        return Output(selected(torch.sin(sums[..., None] * self.waves) * 4, last)), (cache,)


class Writer(nn.Module):
    """Writes the tokens it was given after a prompt of one token, each row its own."""

    def __init__(self, *rows: Sequence[int]) -> None:
        super().__init__()
        self.rows = rows
        self.calls = 0
        self.weight = nn.Parameter(torch.zeros(1))

    def state(self, batch: int, capacity: int) -> tuple[()]:
        return ()

    def step(
        self, input_ids: Tensor, position: Tensor, state: tuple[()], last: Tensor | None = None
    ) -> tuple[Output, tuple[()]]:
        self.calls += 1
        logits = torch.zeros(*input_ids.shape, 1 + max(max(row) for row in self.rows))
        for b, n in torch.cartesian_prod(*map(torch.arange, input_ids.shape)).reshape(-1, 2).tolist():
            row, place = self.rows[b], int(position[b]) + n
            logits[b, n, row[place] if place < len(row) else 0] = 1
        return Output(selected(logits, last)), ()


def written(pieces: Sequence[bytes], stop: Sequence[str] = ()) -> tuple[Continuation, list[str]]:
    """What generation makes of a model that writes the pieces, with the pieces that it showed."""
    shown: list[str] = []
    tokenizer, tokens = cut_tokens(pieces)
    settings = Settings(temperature=0, max_new_tokens=len(pieces), stop=tuple(stop))
    [result] = generate(Writer(tokens), tokenizer, [">"], settings, 10_000, lambda row, text: shown.append(text))
    return result, shown


# Against transformers


@pytest.fixture(scope="module")
def theirs() -> GPT2LMHeadModel:
    return gpt2.pair()[0]


@pytest.fixture(scope="module")
def ours() -> nn.Module:
    return gpt2.pair()[1]


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_transformers(ours: nn.Module, theirs: GPT2LMHeadModel, penalty: float) -> None:
    settings = Settings(temperature=0, max_new_tokens=48, repetition_penalty=penalty)
    results = generate(ours, BYTES, PROMPTS, settings, 128)
    for prompt, result in zip(PROMPTS, results, strict=True):
        ids = torch.tensor([BYTES.encode(prompt)])
        expected = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=48,
            do_sample=False,
            repetition_penalty=penalty,
        )[0, ids.shape[1] :].tolist()
        ended = BYTES.end_of_text in expected
        assert list(result.tokens) == expected[: -1 if ended else None]
        assert result.reason == ("end_of_text" if ended else "length")
    if penalty > 1:
        assert len({result.tokens for result in results}) == 4, "the comparison would show nothing on equal texts"


def test_every_row_of_a_real_model_equals_that_row_alone(ours: nn.Module) -> None:
    settings = Settings(max_new_tokens=40, seed=11, top_k=100, temperature=0.9)
    together = generate(ours, BYTES, PROMPTS, settings, 128)
    alone = [generate(ours, BYTES, [prompt], settings, 128)[0] for prompt in PROMPTS[:4]]
    assert together[:4] == alone


# Rows


@given(
    st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=5),
    st.sampled_from([0.0, 0.7]),
    st.integers(0, 2**40),
    st.sampled_from([1.0, 1.5]),
)
def test_every_row_equals_that_row_alone(prompts: list[str], temperature: float, seed: int, penalty: float) -> None:
    settings = Settings(max_new_tokens=12, temperature=temperature, seed=seed, repetition_penalty=penalty, stop=("a",))
    together = generate(Standin(), BYTES, prompts, settings, 100)
    for row, prompt in enumerate(prompts):
        if prompt not in prompts[:row]:
            assert together[row] == generate(Standin(), BYTES, [prompt], settings, 100)[0]


def test_a_prompt_stepped_in_pieces_gives_the_same(monkeypatch: pytest.MonkeyPatch, ours: nn.Module) -> None:
    whole = [generate(model, BYTES, PROMPTS, GREEDY, 128) for model in (ours, Standin())]
    for tokens in (1, 35, 60, 5 * 61):
        monkeypatch.setattr("atinuke.pipelines.decode.PREFILL_TOKENS", tokens)
        assert [generate(model, BYTES, PROMPTS, GREEDY, 128) for model in (ours, Standin())] == whole


def test_rows_end_on_their_own_and_are_told_apart_while_they_are_written() -> None:
    shown: list[tuple[int, str]] = []
    tokenizer, [a, b, c] = cut_tokens([b"a", b"b", b"c"])
    end = tokenizer.end_of_text
    writer = Writer([a, b, c, end, a, a], [c, end, a, a, a, a])
    results = generate(writer, tokenizer, [">", ">"], GREEDY, 128, lambda row, text: shown.append((row, text)))
    assert results == [Continuation("abc", (a, b, c), "end_of_text"), Continuation("c", (c,), "end_of_text")]
    assert shown == [(0, "a"), (1, "c"), (0, "b"), (0, "c")]
    assert writer.calls == 4, "no step is needed after the last row has ended"


def test_no_step_is_taken_for_nothing() -> None:
    model = Standin()
    generate(model, BYTES, ["a"], Settings(temperature=0, max_new_tokens=3), 128)
    assert model.calls == 3  # the prompt and two of the three new tokens


def test_no_prompts_give_no_texts() -> None:
    assert generate(Standin(), BYTES, [], GREEDY, 128) == []


def test_the_training_mode_is_put_back() -> None:
    model = Standin().train()
    [result] = generate(model, BYTES, ["a"], GREEDY, 128)
    assert model.training
    assert result == generate(model.eval(), BYTES, ["a"], GREEDY, 128)[0]
    assert not model.training


def test_new_tokens_up_to_the_very_end_of_the_context() -> None:
    [result] = generate(Standin(), BYTES, ["abcd"], Settings(temperature=0, max_new_tokens=6), context=10)
    assert len(result.tokens) == 6


# Text


def cut(draw: Callable[[int], int], data: bytes) -> list[bytes]:
    """The bytes in pieces of one to six, wherever the cuts fall."""
    pieces = []
    while data:
        size = draw(6)
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def stopped(text: str, stops: Sequence[str]) -> str | None:
    """The text before the first stop string, found letter by letter; None where there is none."""
    for end in range(len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))]
    return None


@given(
    st.text(alphabet="abcé€𝄞", min_size=1),
    st.lists(st.text("abcé€𝄞", min_size=1, max_size=5), max_size=3),
    st.randoms(),
)
@example("aab", ["ab"], random.Random(0))
@example("abcd", ["abcd", "c"], random.Random(0))
def test_stop_strings_end_the_text_however_the_tokens_fall(text: str, stops: list[str], chance: random.Random) -> None:
    pieces = cut(lambda most: chance.randint(1, most), text.encode())
    result, shown = written(pieces, stops)
    expected = stopped(text, stops)
    assert result.text == (text if expected is None else expected)
    assert result.reason == ("length" if expected is None else "stop")
    assert "".join(shown) == result.text
    assert all(shown), "an empty piece tells nobody anything"


@given(st.text(min_size=1), st.randoms())
def test_text_is_shown_in_whole_characters_as_soon_as_they_are_there(text: str, chance: random.Random) -> None:
    assume("\ufffd" not in text)
    pieces = cut(lambda most: chance.randint(1, most), text.encode())
    result, shown = written(pieces)
    assert result.text == text
    expected, before = [], ""
    for end in range(1, len(pieces) + 1):
        whole = b"".join(pieces[:end]).decode(errors="ignore")
        if b"".join(pieces[:end]) == whole.encode() and whole != before:
            expected.append(whole[len(before) :])
            before = whole
    assert shown == expected


@given(st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=20))
def test_bytes_that_are_no_text_become_what_the_tokenizer_makes_of_them(pieces: list[bytes]) -> None:
    result, shown = written(pieces)
    assert result.text == "".join(shown) == b"".join(pieces).decode(errors="replace")


def test_what_may_become_a_stop_string_waits_and_the_rest_does_not() -> None:
    _, shown = written([b"Yes", b".\n", b"no", b".\n", b"\nUs", b"er: go"], ["\n\nUser:"])
    assert shown == ["Yes", ".", "\nno", "."]


def test_a_tokenizer_that_marks_words_keeps_its_spaces() -> None:
    """Its decoder drops the space of the first token it is given; prompt and text must join as they were written."""
    inner = FastTokenizer(models.WordLevel({"?": 0, "▁I": 1, "▁see": 2, "▁you": 3, "s": 4}, "?"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    inner.add_special_tokens([END_OF_TEXT])
    shown: list[str] = []
    writer = Writer([2, 4, 3, 5])
    [result] = generate(writer, Tokenizer(inner.to_str()), ["I"], GREEDY, 128, lambda row, text: shown.append(text))
    assert result.text == " sees you"
    assert shown == [" see", "s", " you"]


# Errors


@pytest.mark.parametrize(
    ("prompts", "context", "message"),
    [
        (
            ["a", ""],
            128,
            "prompt 2 is empty\n"
            "  the model needs a token to go on from\n"
            "  to fix: begin the text yourself, if only with a line break",
        ),
        (
            ["x" * 1200],
            1210,
            "prompt 1 does not fit\n"
            "  it has 1,200 tokens, and 24 new ones are wanted\n"
            "  the model reads at most 1,210\n"
            "  to fix: set `max_new_tokens` to at most 10",
        ),
        (
            ["x" * 140],
            128,
            "prompt 1 does not fit\n"
            "  it has 140 tokens, and 24 new ones are wanted\n"
            "  the model reads at most 128\n"
            "  to fix: take off 13 tokens",
        ),
    ],
)
def test_prompts_that_do_not_fit(prompts: list[str], context: int, message: str) -> None:
    with pytest.raises(AtinukeError) as error:
        generate(Standin(), BYTES, prompts, GREEDY, context)
    assert str(error.value) == message


def test_every_prompt_that_does_not_fit_is_named_at_once() -> None:
    with pytest.raises(AtinukeError) as error:
        generate(Standin(), BYTES, ["", "x" * 104, "x" * 128, "x" * 105], GREEDY, 128)
    assert [mistake.what for mistake in error.value.mistakes] == [
        "prompt 1 is empty",
        "prompt 3 does not fit",
        "prompt 4 does not fit",
    ]


def test_weights_that_are_not_numbers() -> None:
    model = Standin()
    nn.init.constant_(model.waves, float("nan"))
    with pytest.raises(AtinukeError, match="after 0 new tokens\n  the model's logits are not numbers"):
        generate(model, BYTES, ["a"], GREEDY, 128)


def test_a_model_without_steps() -> None:
    with pytest.raises(AtinukeError, match="this model cannot generate"):
        generate(nn.Linear(2, 2), BYTES, ["a"], GREEDY, 128)
