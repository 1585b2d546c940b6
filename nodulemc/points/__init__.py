"""Where nodules are: the files that say so, and whether a nodule can be at a point."""
