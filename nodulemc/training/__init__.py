"""From tables of nodules and CTs to an ensemble of trained networks."""
