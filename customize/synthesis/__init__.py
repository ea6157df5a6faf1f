"""Make triplets: captions, finished pictures or a few pairs go in, pairs to train on come out.

`writing/` turns captions into (instruction, edited caption), `pictures/` draws both captions alike,
`filtering/` keeps the good ones and reports on the rest, `output/` writes what training reads.
"""
