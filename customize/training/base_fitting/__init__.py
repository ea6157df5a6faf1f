"""Editing bases: a text-to-image model and pairs in, a base that follows instructions out."""
