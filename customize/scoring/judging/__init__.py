"""Judges that are no person: does an edit follow its instruction, and keep the rest."""
