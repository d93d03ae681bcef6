"""The HTTP endpoints, by what they are about."""

from cloister_inference.api.endpoints import inference, keys, models, repository, server

ROUTERS = (server.router, models.router, inference.router, keys.router, repository.router)
