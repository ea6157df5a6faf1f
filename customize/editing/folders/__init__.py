"""Folders: many pictures and what is asked of them in, the same edit of each out; may be stopped.

`find` and `table` give items, `plan` fills in every setting, `group` makes pictures of one size
together, `run` reads ahead and writes behind, `manifest` knows what is done, `page` shows it.
"""
