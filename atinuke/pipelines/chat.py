"""Conversations as one text: a chat template, as models bring them, and which tokens the assistant has said."""

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock, Timer
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from atinuke.core.document import read_text
from atinuke.core.errors import fail
from atinuke.runtime.tokenizer import Tokenizer

Message = Mapping[str, str]
TEMPLATE, CONFIG = "chat_template.jinja", "tokenizer_config.json"
SECONDS = 10.0  # that a template may take for one conversation
RENDERER = Path(__file__).with_name("chat_renderer.py")
ASSISTANT = "assistant"


@dataclass(frozen=True)
class Template:
    """A chat template in Jinja, and the special tokens that it may name, such as `bos_token`."""

    text: str
    special: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Template":
        """The template in a `chat_template.jinja` or a `tokenizer_config.json`, or in one of these in a folder. Special
        tokens are those of the `tokenizer_config.json` there.

        Raises:
            AtinukeError: there is none, or a file cannot be read.
        """
        folder = path if path.is_dir() else path.parent
        config = _config(folder / CONFIG) if (folder / CONFIG).is_file() else {}
        names = {name: found for name, value in config.items() if (found := _token(name, value)) is not None}
        if path.is_dir():
            path = folder / (TEMPLATE if (folder / TEMPLATE).is_file() else CONFIG)
        if path.name != CONFIG:
            return cls(read_text(path), names)
        told = config.get("chat_template")
        if isinstance(told, list):  # of several, each with a name
            told = next((one.get("template") for one in told if one.get("name") == "default"), None)
        if not isinstance(told, str):
            fix = f"give a {TEMPLATE}, or a {CONFIG} that has a `chat_template`"
            raise fail("has no chat template", where=str(path), fix=fix)
        return cls(told, names)

    def prompt(self, messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
        """The tokens of a conversation up to where the assistant's answer begins.

        Raises:
            AtinukeError: see `conversation`.
        """
        _require(messages, tokenizer)
        [found] = self._rendered(messages, tokenizer, [(len(messages), True)])
        return list(_marked(tokenizer.content).encode(found.text, add_special_tokens=False).ids)

    def conversation(self, messages: Sequence[Message], tokenizer: Tokenizer) -> NDArray[np.int64]:
        """A whole conversation, int64 `[2, tokens]`: its tokens, and 1 where the assistant has said them, else 0.

        These are the tokens with a character between `{% generation %}` and `{% endgeneration %}` where the template
        has these marks. Else an answer is what a conversation has more after it than before, with the template's call
        for an answer: so the token that ends it is part of it.

        Raises:
            AtinukeError: these are no messages, one has the text of a special token, the template cannot be rendered
                or takes too long, or it does not tell where the answers are.
        """
        _require(messages, tokenizer)
        answers = [at for at, message in enumerate(messages) if message["role"] == ASSISTANT]
        if not answers:
            raise fail("has no message of the assistant", "there is nothing to learn from it", fix="leave it out")
        steps = [step for at in answers for step in ((at, True), (at + 1, False))]
        whole, *found = self._rendered(messages, tokenizer, [(len(messages), False), *steps])
        spans = list(whole.spans)
        if not spans:
            for at, before, after in zip(answers, found[::2], found[1::2], strict=True):
                if not (whole.text.startswith(after.text) and after.text.startswith(before.text)):
                    raise fail(
                        f"the chat template does not tell where message {at + 1}, an answer, stands",
                        "the text before it is another without it",
                        fix="mark answers in the template: {% generation %} ... {% endgeneration %}",
                    )
                spans.append((len(before.text), len(after.text)))
        encoding = _marked(tokenizer.content).encode(whole.text, add_special_tokens=False)
        said = np.zeros(len(whole.text) + 1, np.int64)
        for begin, end in spans:
            said[begin:end] = 1
        sums = np.concatenate([[0], said.cumsum()])
        begins, ends = np.array(encoding.offsets, np.int64).reshape(-1, 2).T
        return np.stack([np.array(encoding.ids, np.int64), (sums[ends] > sums[begins]).astype(np.int64)])

    def end(self, tokenizer: Tokenizer) -> str:
        """The special token that the template puts behind an answer; the tokenizer's end of text where it puts none."""
        asked, answer = {"role": "user", "content": "Question"}, {"role": ASSISTANT, "content": "Answer"}
        [found] = self._rendered([asked, answer], tokenizer, [(2, False)])
        _, _, tail = found.text.rpartition("Answer")
        names = {number: name for name, number in tokenizer.special.items()}
        tokens = _marked(tokenizer.content).encode(tail, add_special_tokens=False).ids
        behind = [names[number] for number in tokens if number in names]
        return [*behind, names[tokenizer.end_of_text]][0]

    def _rendered(
        self, messages: Sequence[Message], tokenizer: Tokenizer, wanted: Sequence[tuple[int, bool]]
    ) -> "list[Rendered]":
        names = {number: name for name, number in tokenizer.special.items()}
        special = {"eos_token": names[tokenizer.end_of_text], **self.special}
        plain = [dict(message) for message in messages]
        found = _PROCESS.ask({"template": self.text, "messages": plain, "special": special, "wanted": wanted})
        return [Rendered(one["text"], tuple(map(tuple, one["spans"]))) for one in found]


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, and the ranges of characters in it that the template marks as answers."""

    text: str
    spans: tuple[tuple[int, int], ...]


class _Process:
    """The program that renders, begun when it is first needed, and again after it had to be ended."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: tuple[int, subprocess.Popen[str]] | None = None

    def ask(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What it answers; raises AtinukeError where the template is wrong or takes too long."""
        fix = "mend the template, or use another"
        with self._lock:
            process = self._process()
            assert process.stdin
            assert process.stdout
            clock = Timer(SECONDS, process.kill)
            clock.start()
            try:
                process.stdin.write(json.dumps(asked) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = ""
            except BaseException:  # Ctrl-C: what it still answers would be taken for the answer to the next
                self._end(process)
                raise
            finally:
                clock.cancel()
            if not line:
                self._end(process)
                told = f"it was ended: it may take {SECONDS:g} seconds"
                raise fail("the chat template cannot be rendered", told, fix=fix)
        answer = json.loads(line)
        if "error" in answer:
            raise fail("the chat template cannot be rendered", answer["error"], fix=fix)
        found: list[dict[str, Any]] = answer["found"]
        return found

    def _process(self) -> "subprocess.Popen[str]":
        if self._running and self._running[0] == os.getpid() and self._running[1].poll() is None:
            return self._running[1]
        if find_spec("jinja2") is None:
            raise fail("chat templates need jinja2", fix="pip install 'atinuke[torch]'")
        process = subprocess.Popen(  # noqa: S603 - a program of ours, and no words of others
            [sys.executable, "-I", str(RENDERER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        assert process.stdout
        if process.stdout.readline() != "ready\n":
            self._end(process)
            raise fail("the program that renders chat templates does not start", where=str(RENDERER), fix="reinstall")
        self._running = os.getpid(), process
        return process

    def close(self) -> None:
        """Ends the program, if it runs and is this process's own."""
        if self._running and self._running[0] == os.getpid():
            self._end(self._running[1])

    def _end(self, process: "subprocess.Popen[str]") -> None:
        process.kill()
        process.communicate()
        self._running = None


_PROCESS = _Process()
atexit.register(_PROCESS.close)


@lru_cache(maxsize=4)
def _marked(content: str) -> tokenizers.Tokenizer:
    """The tokenizer in which a special token that is written in a text is one, as templates write them."""
    found = tokenizers.Tokenizer.from_str(content)
    found.no_truncation()
    found.no_padding()
    return found


def _require(messages: object, tokenizer: Tokenizer) -> None:
    """Refuses what is no conversation, and what would be taken for more than text: a message that holds the name of a
    special token could end itself and begin another."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise fail("is no list of messages", f"got {messages!r:.60}", fix='write [{"role": "user", "content": "..."}]')
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            raise fail(f"message {number} must have `role` and `content`, and no more", f"got {message!r:.60}")
        for key, value in message.items():
            if not isinstance(value, str):
                raise fail(f"message {number}: `{key}` is not a text", f"got {value!r:.60}")
            if found := next((name for name in tokenizer.special if name in value), None):
                raise fail(
                    f"message {number}: `{key}` holds `{found}`, which the tokenizer takes for a special token",
                    fix="take it out, or write it otherwise",
                )


def contents(messages: Sequence[object]) -> list[object]:
    """What the messages of a conversation say, whoever says it."""
    return [message.get("content") for message in messages if isinstance(message, Mapping)]


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise fail("is not JSON", str(error), where=str(path), fix="copy it again") from None
    if not isinstance(found, dict):
        raise fail("is no JSON object", where=str(path), fix="copy it again")
    return found


def _token(name: str, value: object) -> str | None:
    """The text of a special token of a tokenizer_config.json; None for its other settings."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if name.endswith("_token") and isinstance(value, str) else None
