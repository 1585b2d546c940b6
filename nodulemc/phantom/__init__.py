"""Procedural low-dose chest CTs with lung nodules whose malignancy probability is known (docs/phantoms.md)."""
