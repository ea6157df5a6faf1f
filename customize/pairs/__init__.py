"""Training pairs: any layout on disk to `Pair` to `Example`, and what may be wrong. No torch."""
