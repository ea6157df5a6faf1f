"""Base and adapter as one: a folder and a single file out, under the original names."""
