"""The cloister command: starts the services as processes on one machine."""
