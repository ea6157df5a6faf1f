"""Written files read back and compared with the adapter: files in, verdicts out."""
