"""Certificates for one run: an authority of its own, and what a server on this machine needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files in PEM."""

    authority: Path
    """What a client must trust."""
    server: Path
    key: Path
    client: Path
    """A client's certificate and key in one file, for servers that ask for one."""


def make_certificates(folder: Path) -> Certificates:
    """Write them into the folder, in place of those that are there; they name 127.0.0.1 and localhost."""
    made = Certificates(*(folder / name for name in ("ca.pem", "server.pem", "server.key", "client.pem")))
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(made.authority)
    made.server.unlink(missing_ok=True)
    server.private_key_pem.write_to_path(made.key)
    for part in server.cert_chain_pems:
        part.write_to_path(made.server, append=True)
    authority.issue_cert("client@localhost").private_key_and_cert_chain_pem.write_to_path(made.client)
    return made
