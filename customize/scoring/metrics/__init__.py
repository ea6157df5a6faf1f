"""Every metric: finished edits in, a number for each out."""
