"""Every shared fake of the tests: real classes at toy width, from a seed, CPU and offline."""
