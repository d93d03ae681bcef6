"""The console: a page to watch trainings, try encrypted predictions and see who sees what."""
