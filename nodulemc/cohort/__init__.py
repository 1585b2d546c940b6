"""Cohorts: thousands of scans through one resident ensemble, resumable at any moment (docs/cohort.md)."""
