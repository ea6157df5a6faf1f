"""What may be wrong with pairs: pairs in, findings out, errors before warnings."""
