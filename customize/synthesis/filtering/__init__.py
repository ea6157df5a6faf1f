"""Keep the pairs that show their edit: similarities, thresholds, a judge of both pictures."""
