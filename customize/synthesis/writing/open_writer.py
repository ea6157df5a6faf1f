"""From a recipe's `writer` to an open one."""

from __future__ import annotations

from typing import assert_never

from customize.recipe.synthesis import ServerSection, Writer
from customize.scoring.judging.chat import ServerOptions
from customize.synthesis.writing.rewrite import Writer as OpenWriter


def open_writer(section: Writer) -> OpenWriter:
    """Open the writer that a recipe names; raises SynthesisError where it cannot be reached."""
    match section.kind:
        case "drawn_world":
            from customize.synthesis.writing.drawn_world import DrawnWorldWriter

            return DrawnWorldWriter()
        case "endpoint":
            from customize.synthesis.writing.endpoint import EndpointWriter

            assert section.server is not None, "an endpoint without a server"
            return EndpointWriter(server_options(section.server), section.licence)
        case "local":
            from customize.synthesis.writing.local_model import open_local

            assert section.model is not None, "a local writer without a model"
            return open_local(section.model, section.adapter)
        case _ as never:
            assert_never(never)


def server_options(section: ServerSection, longest: int = 256) -> ServerOptions:
    """Turn a recipe's server into options; `longest` is an answer's, in tokens."""
    return ServerOptions(
        url=section.url,
        model=section.model,
        key_variable=section.key_variable,
        timeout=section.timeout,
        retries=section.retries,
        at_once=section.at_once,
        longest=longest,
    )
