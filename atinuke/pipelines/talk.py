"""Conversations with a model that has learnt them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from atinuke.core.errors import fail
from atinuke.pipelines.chat import CONFIG, TEMPLATE, Message, Template
from atinuke.pipelines.fields import Chat
from atinuke.pipelines.generate import generate
from atinuke.pipelines.run import Run
from atinuke.pipelines.sampling import Settings
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.runtime.text import Continuation, OnText


def talker(run: Run, folder: Path) -> tuple[Run, Template]:
    """The chat template of a run or of a model folder, and the run with the token that this puts behind an answer as
    the end of its texts, beside those that it had.

    Raises:
        AtinukeError: it has no chat template, or a wrong one.
    """
    fields = run.made.rows.fields.values() if run.made and run.made.rows else ()
    templates = [field.read() for field in fields if isinstance(field, Chat)]
    if not templates and not any((folder / name).is_file() for name in (TEMPLATE, CONFIG)):
        what = f"there is no chat field in its recipe, and no {TEMPLATE} or {CONFIG} beside it"
        raise fail("knows no conversations", what, where=str(folder), fix="train it on some, or give prompts alone")
    template = templates[0] if templates else Template.load(folder)
    end = template.end(run.tokenizer)
    tokenizer = Tokenizer(run.tokenizer.content, end, ends=run.tokenizer.ends)
    return replace(run, tokenizer=tokenizer, end_of_text=end), template


def answers(
    run: Run,
    template: Template,
    conversations: Sequence[Sequence[Message]],
    settings: Settings,
    on_text: OnText | None = None,
    compiled: bool = False,
) -> list[Continuation]:
    """What the assistant says next in each conversation.

    Raises:
        AtinukeError: see `Template.prompt` and `generate`.
    """
    prompts = [template.prompt(messages, run.tokenizer) for messages in conversations]
    # The template says all that stands in front of a conversation.
    return generate(
        run.model, run.tokenizer, prompts, settings, run.context, on_text, compiled, begin=(), muted=run.muted
    )
