"""Grand-Challenge: its input, its output, and its two ways of calling an algorithm."""
