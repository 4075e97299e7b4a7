"""One server: on a port, a unix socket, or behind TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from tests.servers.builds import NEWEST, Build
from tests.servers.certificates import make_certificates
from tests.servers.launcher import Launcher
from tests.servers.node import KEEPS_NOTHING, Node
from tests.servers.site import HOST, Site


class Standalone(Launcher):
    """One server, which keeps nothing unless `settings` say so (`node.KEEPS_ITS_DATA`).

    `unix`: on a socket in its folder, and on no port. `tls`: on a port that speaks nothing else; needs `WITH_TLS`.
    `users`: users as `ACL SETUSER` takes them, besides the default one, which may do everything.
    Use it in `async with`, or `start()` it and `close()` it.
    """

    def __init__(
        self,
        build: Build = NEWEST,
        *,
        unix: bool = False,
        tls: bool = False,
        users: tuple[str, ...] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        assert build.tls or not tls, f"{build.name} was built without TLS"
        self._site = Site()
        self._unix, self._tls = unix, tls
        self.socket = self._site.folder / "s.sock"
        self.certificates = make_certificates(self._site.folder) if tls else None
        options, access = KEEPS_NOTHING | self._listening(), self._access()
        options |= {f"user {name}": rules for name, _, rules in (user.partition(" ") for user in users)}
        self.node = Node(self._site, build, "node", options | dict(settings or {}), access=access)
        if tls:
            self.node.configure({"tls-port": str(self.node.port)})

    @property
    def url(self) -> str:
        """An address for the default user; for TLS with the authority to trust."""
        if self._unix:
            return f"unix://{self.socket}"
        if self.certificates is not None:
            return f"rediss://{self.node.address}/0?ssl_ca_certs={self.certificates.authority}"
        return self.node.url

    def client(self, **options: Any) -> Redis:
        """A client, to be closed by the caller."""
        return self.node.client(**options)

    async def start(self) -> None:
        await self.node.start()

    def close(self) -> None:
        """End it and remove what it wrote."""
        self.node.kill()
        self._site.close()

    async def flush(self) -> None:
        """Empty it, of scripts and functions too."""
        await asyncio.to_thread(self.flush_now)

    def flush_now(self) -> None:
        """The same for fixtures, which are no coroutines."""
        self.node.flush()

    def _listening(self) -> dict[str, str]:
        if self._unix:
            return {"port": "0", "unixsocket": str(self.socket), "unixsocketperm": "700"}
        if self.certificates is not None:
            made = self.certificates
            return {
                "port": "0",
                "tls-cert-file": str(made.server),
                "tls-key-file": str(made.key),
                "tls-ca-cert-file": str(made.authority),
                "tls-auth-clients": "no",
            }
        return {}

    def _access(self) -> dict[str, Any]:
        if self._unix:
            return {"unix_socket_path": str(self.socket)}
        if self.certificates is not None:
            mine = str(self.certificates.client)  # for a server that asks for one
            trusted = str(self.certificates.authority)
            return {"host": HOST, "ssl": True, "ssl_ca_certs": trusted, "ssl_certfile": mine, "ssl_keyfile": mine}
        return {}
