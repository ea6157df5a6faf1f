"""A few pairs to many: cut and mirrored alike, worded anew, and shown on new sources."""
