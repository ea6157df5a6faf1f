"""The networks that look at pictures: names in, vectors out, each kept once computed."""
