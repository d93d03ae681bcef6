"""The SuperLink's command line."""

from pathlib import Path


def superlink_command(host: str, port: int, database: Path, secret: Path) -> list[str]:
    """Return the command that runs the SuperLink.

    ServerApps run outside of it, in the trainer: with process isolation only a SuperExec that
    knows the secret is given tasks, and nothing is installed at run time.
    """
    return [
        "flower-superlink",
        "--insecure",
        "--host",
        host,
        "--port",
        str(port),
        "--isolation",
        "process",
        "--superexec-auth-secret-file",
        str(secret),
        "--database",
        str(database),
        "--disable-runtime-dependency-installation",
    ]
