"""From captions to edits: several kinds of writers, one strict reading of what they answer."""
