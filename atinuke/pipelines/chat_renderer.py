"""The program that renders chat templates, in a process of its own: see `chat`.

A template may be a stranger's. Jinja's sandbox keeps it from running code, but not from going on for ever or from
filling the memory: `{% for i in range(99999) %}` within itself, `"%9999999999d" % 1`. So this is a program that can be
ended. It imports nothing of Atinuke; reads a line of JSON from stdin and writes one to stdout, for each conversation.
"""

import json
import re
import secrets
import signal
import sys
from contextlib import suppress
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MEMORY = 1 << 30  # bytes that a template may take
LONGEST = 1 << 24  # characters of a conversation
MARK = f"\ue000{secrets.token_hex(8)}"  # which nobody can write beforehand


class Generation(Extension):
    """`{% generation %}` and `{% endgeneration %}` stand around what an assistant has said, as in transformers."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 has it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Any) -> str:
        return f"{MARK}({caller()}{MARK})"


class Names(Namespace):
    """Jinja's namespace, without names that begin with an underscore."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"`{name}` begins with an underscore")
        super().__setitem__(name, value)


def environment() -> ImmutableSandboxedEnvironment:
    """What templates are written for: that of transformers, but for the clock, by which no row may be made."""
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = _tojson
    made.globals.update(raise_exception=_raise, namespace=Names)
    return made


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)


def rendered(made: ImmutableSandboxedEnvironment, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """For each of `asked["wanted"]`, how many messages and whether an answer is to follow: the text, and the ranges of
    characters in it that are marked."""
    template = made.from_string(asked["template"])
    found = []
    for count, answer in asked["wanted"]:
        given = {"messages": asked["messages"][:count], "tools": None, "documents": None}
        text = template.render({**asked["special"], **given, "add_generation_prompt": answer})
        if len(text) > LONGEST:
            raise TemplateError(f"the text has {len(text):,} characters; at most {LONGEST:,}")
        pieces = re.split(f"{MARK}([()])", text)
        whole, spans, begun = "", [], 0
        for sign, piece in zip(["", *pieces[1::2]], pieces[::2], strict=True):
            if sign == "(":
                begun = len(whole)
            elif sign == ")":
                spans.append((begun, len(whole)))
            whole += piece
        found.append({"text": whole, "spans": spans})
    return found


def main() -> None:
    """Answers line by line until stdin ends. Ctrl-C is for the program that asks: a run finishes its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(ImportError, ValueError, OSError):  # where there are no such limits, there is still the clock
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    made = environment()
    print("ready", flush=True)  # noqa: T201 - this is how it is spoken with
    for line in sys.stdin:
        try:
            answer: Any = {"found": rendered(made, json.loads(line))}
        except MemoryError:
            answer = {"error": f"it takes more than {MEMORY >> 20:,} MB"}
        except Exception as error:  # whatever a template brings about
            answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        print(json.dumps(answer), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
