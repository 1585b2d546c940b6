"""The ensemble: its folder, and its members, which run on the fastest backend there is and vote softly."""
