"""Teach instruction-editing diffusion models new concepts from a few pairs of pictures."""

__version__ = "0.1.0"
