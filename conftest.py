"""Leave out doctests of modules whose extra is not installed; their own tests say so and skip."""

from importlib.util import find_spec

NEED_GRADIO = ["customize/studio/tabs/*", "customize/studio/page.py", "customize/studio/studio.py"]
collect_ignore_glob = [] if find_spec("gradio") else NEED_GRADIO
