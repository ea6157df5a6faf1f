"""Files that others made: untrusted bytes in, changes of known layers out, or a clear refusal."""
