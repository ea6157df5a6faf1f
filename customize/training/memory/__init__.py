"""Memory: how much a run takes, estimated beforehand, and ways to take less of it."""
