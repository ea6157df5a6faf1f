"""The drawn world of the embedded base: things, scenes, looks and the edits between them.

A seed goes in; a `DrawnEdit` (source, instruction, target, captions) comes out.
"""
