"""Single-file checkpoints: one file in, a checked diffusers folder out."""
