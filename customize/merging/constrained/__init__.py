"""The closed form: what each adapter does to its own instructions in, one change of a layer out."""
