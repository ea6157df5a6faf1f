"""Which edits are scored: what the user names in, finished edits out, made where there are none."""
