"""The commands ``keyholder keys``: a query's key in the files of Concrete's own clients."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cloister_keyholder.commands.opening import Model, Url, chosen, open_model
from cloister_keyholder.encryption import wire
from cloister_keyholder.encryption.parameters import ClientSpecs
from cloister_keyholder.errors import KeyUnusable
from cloister_keyholder.keys import keyfile
from cloister_keyholder.model import EncryptedModel

app = typer.Typer(
    help="A query's key in the files of Concrete's own clients.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

SECRET_LIMIT = 1 << 20
"""The most bytes that a key's file may have: 1 MiB. That of 16,384 bits has 128 KiB."""

KeyPath = Annotated[Path, typer.Option(help="A key file of encrypt")]


class Form(StrEnum):
    """The files in which Concrete keeps keys."""

    KEYSET = "keyset"
    """Of ``Keyset.serialize``."""
    CACHE = "cache"
    """``secretKey_<id>`` of a key cache."""


@app.command("export")
def export(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="New file, for its owner alone")],
    key: KeyPath,
    form: Annotated[Form, typer.Option(help="Of the file")] = Form.KEYSET,
    url: Url = None,
    model: Model = None,
) -> None:
    """Write a query's key for Concrete's own client."""
    held = keyfile.read_key(key)
    settings = chosen(ctx, url, model or held.model)
    with open_model(settings, held.version) as encrypted:
        keyfile.check_client(held, key, encrypted.description.client_digest, settings.url)
        specs = _specs(encrypted)
        bits = wire.read_keyset(held.keyset, specs)
    write = wire.write_keyset if form == Form.KEYSET else wire.write_secret_key
    keyfile.write_new(file, write(specs, bits), keyfile.KEY_MODE)


@app.command("import")
def import_(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A keyset, or secretKey_<id>")],
    key: Annotated[Path, typer.Option(help="New key file, for decrypt")],
    url: Url = None,
    model: Model = None,
) -> None:
    """Take a key that Concrete's own client encrypted a row under, to decrypt its result here."""
    try:
        size = file.stat().st_size
        serialised = file.read_bytes() if size <= SECRET_LIMIT else b""
    except OSError as error:
        raise KeyUnusable(f"{file} cannot be read: {error.strerror}") from None
    settings = chosen(ctx, url, model)
    with open_model(settings) as encrypted:
        description, specs = encrypted.description, _specs(encrypted)
        try:
            bits = wire.read_any_key(serialised, specs)
        except KeyUnusable:
            raise KeyUnusable(
                f"{file} is no key of version {description.version} of {encrypted.name}: give a "
                "serialised Keyset or the file secretKey_<id> of a key cache"
            ) from None
    keyfile.write_key(
        keyfile.new_key_file(
            encrypted.name,
            description.version,
            description.client_digest,
            wire.write_keyset(specs, bits),
        ),
        key,
    )


def _specs(encrypted: EncryptedModel) -> ClientSpecs:
    """Return the parameters of a model whose queries have a key each."""
    if encrypted.specs.needs_evaluation_keys:
        raise KeyUnusable(
            f"queries of {encrypted.name} are encrypted under a stored key, and no key of theirs "
            "comes or goes: use predict, or Concrete's client with a key of its own"
        )
    return encrypted.specs
