"""InstructPix2Pix on Stable Diffusion 1.5 and XL: the families that these share code with."""
