"""The HTTP endpoints, by what they are about."""

from cloister_inference.endpoints import inference, models, repository, server

ROUTERS = (server.router, models.router, inference.router, repository.router)
