"""What may be wrong with pairs: pairs in, faults out, errors before warnings."""
