"""The door for `accelerate launch customize/train_concept.py --recipe recipes/my_dog.yaml`."""

import sys
from pathlib import Path

if not __package__:
    # Run as a file, Python puts the package's own folder first on the path, where `import
    # customize` fails and each of our modules could pass for a library of the same name.
    folder = Path(__file__).resolve().parent
    rest = [entry for entry in sys.path if Path(entry).resolve() != folder]
    sys.path[:] = [str(folder.parent), *rest]

from customize.cli.main import main

if __name__ == "__main__":
    words = [word.removeprefix("--recipe=") for word in sys.argv[1:] if word != "--recipe"]
    sys.exit(main(["train", *words]))
