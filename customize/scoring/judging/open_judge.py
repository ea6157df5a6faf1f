"""From what the user names to a judge."""

from __future__ import annotations

from customize.errors import ScoreError
from customize.scoring.judging.chat import ServerOptions
from customize.scoring.judging.clip import ClipJudge
from customize.scoring.judging.opinion import Judge
from customize.scoring.judging.vision_model import VisionJudge
from customize.scoring.networks.encoders import open_clip


def open_judge(name: str, url: str | None = None, device: str | None = None) -> Judge:
    """Open the model `name` of the server at `url`, or without one a CLIP such as `embedded`.

    Raises EndpointError and ScoreError.
    """
    if url is None:
        return ClipJudge(open_clip(name, device))
    if name == "embedded":
        raise ScoreError(
            f"judge {name!r} at {url}: expected the name of one of the server's models; name it, "
            "or leave the server out for the embedded CLIP"
        )
    return VisionJudge(ServerOptions(url, name, longest=1024, temperature=0.3))
