"""Keys that are kept: in key files, and for models that need evaluation keys."""
