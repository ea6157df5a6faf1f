"""What synthesis leaves behind: a journal to go on from, and pairs in the layouts people read."""
