"""Names and tensors of each layout: changes in, tensors out, and back."""
