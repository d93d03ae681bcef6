"""The Flower SuperLink that sites and trainer meet at."""
