"""Where nodules are: every kind of file that can say so, and whether a nodule can be there."""
