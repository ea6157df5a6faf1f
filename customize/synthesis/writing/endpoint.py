"""A writer behind any server of OpenAI's protocol: vLLM, Ollama, llama.cpp or a paid one."""

from __future__ import annotations

from collections.abc import Sequence

from customize.scoring.judging.chat import Chat, Reply, ServerOptions, object_schema
from customize.synthesis.writing.few_shot import chat_prompt
from customize.synthesis.writing.read_answer import KEYS, read_json_answer
from customize.synthesis.writing.rewrite import Answer, Rejection

SCHEMA = object_schema({key: {"type": "string"} for key in KEYS})


class EndpointWriter:
    """Asks a server for an edit of each caption."""

    waits = True

    def __init__(self, options: ServerOptions, licence: str = "unknown") -> None:
        """Open the server; raises EndpointError as `Chat` does."""
        self._chat, self.name, self.licence = Chat(options), options.model, licence

    def write(self, captions: Sequence[str], seeds: Sequence[int]) -> list[Answer]:
        """Ask for all at the same time; raises EndpointError for a server that is of no use."""
        replies = self._chat.ask_all([chat_prompt(caption) for caption in captions], seeds, SCHEMA)
        return [_answer(caption, reply) for caption, reply in zip(captions, replies, strict=True)]


def _answer(caption: str, reply: Reply) -> Answer:
    if reply.refused:
        return Rejection(caption, "refused")
    if reply.failure:
        return Rejection(caption, "no answer", reply.failure)
    return read_json_answer(caption, reply.text)
