"""The studio: a local page for the whole road from pairs to a finished adapter.

It calls the functions that the command line calls, and reads and writes the same folders. Only
here is gradio imported: `tabs/`, `page.py` and `serve.py`; the other files are plain functions.
"""
