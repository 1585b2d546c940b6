"""Cohorts: scoring thousands of scans with one loaded ensemble, in runs that can always be resumed (docs/cohort.md)."""
