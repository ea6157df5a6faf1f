"""How the embedded base is fitted: a recipe goes in, a folder in diffusers' layout comes out."""
