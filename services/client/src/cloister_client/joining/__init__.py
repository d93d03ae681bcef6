"""How a site comes to be let into the federation."""
