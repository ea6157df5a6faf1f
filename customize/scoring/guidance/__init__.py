"""Guidance by score: settings swept over edits in; curves, and the best setting, out."""
