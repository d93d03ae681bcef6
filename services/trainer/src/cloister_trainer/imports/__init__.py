"""Models that were trained elsewhere, taken over as published versions."""
