"""Many machines: the groups of a folder's plan to workers, their answers back to one manifest.

Nothing below knows of it, and only here is `ray` imported.
"""
