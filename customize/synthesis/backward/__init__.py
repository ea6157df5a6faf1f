"""Sources for finished pictures: an editing base takes the look away, the pair is turned round."""
