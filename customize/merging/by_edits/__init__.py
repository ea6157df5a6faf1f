"""Merges that look at edits: adapters and pairs in, one adapter fitted to them out."""
