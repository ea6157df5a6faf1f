"""Choices between two results of one edit, by a person or a judge: kept, read, counted."""
