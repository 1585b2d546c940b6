"""The ensemble: its folder, its members on the fastest backend there is, soft voting."""
