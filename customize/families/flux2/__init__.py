"""Editing bases with the transformer of FLUX.2: pictures and text are tokens of one sequence."""
