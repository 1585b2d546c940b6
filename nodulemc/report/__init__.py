"""Pages for people: one scan's nodules with pictures and all that is known of them, and a cohort's index."""
