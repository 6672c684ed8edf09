"""Chat templates: the jinja2 text that a published tokenizer brings with it, rendered in a sandbox."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyorder.core.files import read_object

CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"


@dataclass(frozen=True)
class ChatTemplate:
    """How a conversation becomes a prompt.

    Args:
        template: jinja2 text.
        names: special tokens by the names templates use, such as "eos_token".
        specials: texts that are one token each.
        source: the file it was read from.
    """

    template: str
    names: Mapping[str, str]
    specials: Mapping[str, int]
    source: str

    def render(self, history: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """The prompt of a conversation of {"role", "content"}.

        Raises:
            ValueError: jinja2 is not installed, or the template refuses the conversation.
        """
        try:
            from jinja2 import TemplateError
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError:
            raise ValueError("chat templates need jinja2; install it with pip install 'anyorder[eval]'") from None

        def refuse(message: str) -> None:
            raise TemplateError(message)

        room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        room.globals["raise_exception"] = refuse
        messages = [dict(turn) for turn in history]
        try:
            return room.from_string(self.template).render(
                messages=messages, add_generation_prompt=add_generation_prompt, **self.names
            )
        except TemplateError as error:
            raise ValueError(f"{self.source}: the chat template cannot show this conversation ({error})") from None


def read_template(folder: Path, *, specials: Mapping[str, int]) -> ChatTemplate | None:
    """The chat template of a model folder, or None if it has none.

    Args:
        specials: texts that are one token each.
    Raises:
        ValueError: a file that is no JSON.
    """
    config = _json(folder / CONFIG)
    file = folder / TEMPLATE
    found = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    if isinstance(found, list):  # several, by name
        named = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
        found = named.get("default")
    if not isinstance(found, str):
        return None
    names = {key: _content(config.get(key)) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    return ChatTemplate(
        template=found,
        names=names,
        specials=specials,
        source=str(file if file.is_file() else folder / CONFIG),
    )


def _json(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}


def _content(token: object) -> str:
    """A special token's text: given as it is, or as {"content": ...}."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
