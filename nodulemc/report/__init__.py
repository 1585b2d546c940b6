"""HTML pages: one for each scan, with its nodules' pictures and numbers, and a cohort's index."""
