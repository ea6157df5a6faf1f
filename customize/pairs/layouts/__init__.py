"""Each way in which people lay pairs out: a folder or table in, pairs and faults out."""
