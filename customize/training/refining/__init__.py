"""Refining: a finished adapter goes on learning from choices between its results."""
