"""What passes; everything else is refused."""

from cloister_shared.joining import ENROL_PATH, HEALTH_PATH

FLEET = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "pull-object",
    "confirm-message-received",
)
"""What a SuperNode calls at ``/v1/fleet/`` (flwr.supernode.fleet_http_client), but for its objects.
Not ``register-node`` and ``unregister-node``, by which nodes without keys come and go."""
FLEET_OBJECTS = "push-object"
"""The one call with large bodies: a piece of an array, or another record."""

FLEET_PATHS = tuple(f"/v1/fleet/{call}" for call in FLEET)
OBJECTS_PATH = f"/v1/fleet/{FLEET_OBJECTS}"
ENROLMENT_PATH = ENROL_PATH
ENROLMENT_HEALTH_PATH = HEALTH_PATH
"""With GET: the one thing a site can ask without any key, to see name, port and certificate."""
