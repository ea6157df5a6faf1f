"""Write the base that a running fit has come to: its newest averaged weights, as a base's folder.

    python benchmarks/gpu/newest_weights.py RUN FOLDER --base embedded

RUN is the output folder of a `fit-base` that started `--from` the base: its newest snapshot, in
RUN/state, holds denoiser and text encoder; the rest is the base's own. The fit is not disturbed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file

from customize.embedded.fitting.editor import Learners
from customize.embedded.folder import read_parts, write_folder
from customize.families.base import EMBEDDED


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", default="embedded", help="what the fit started from")
    options = parser.parse_args()
    if options.folder.exists():
        raise SystemExit(f"{options.folder} is there already; choose another or move it away")
    snapshots = {
        int(path.stem.split("-")[1]): path
        for path in (options.run / "state").glob("editor-*.safetensors")
    }
    if not snapshots:
        raise SystemExit(
            f"{options.run}/state holds no snapshot (editor-SAMPLES.safetensors); a fit keeps its "
            "first after 50,000 samples"
        )
    samples = max(snapshots)
    parts = read_parts(EMBEDDED if options.base == "embedded" else Path(options.base))
    learners = Learners(parts.unet, parts.text_encoder)
    average = load_file(snapshots[samples])["ema"].float()
    torch.nn.utils.vector_to_parameters(average, learners.parameters())
    learners.finish()
    write_folder(parts, options.folder)
    print(f"{options.folder}: the base after {samples} samples")


if __name__ == "__main__":
    main()
