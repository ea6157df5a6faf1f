"""From names to modules: weights downloaded, checked and read whole, by part or by layer."""
