"""The one address at which sites reach the federation."""
