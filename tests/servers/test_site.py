"""Nothing of a fleet outlives the process that made it, however that ended."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.embedded.scripts import ScriptRunner, is_gone
from tests.servers import site
from tests.servers.builds import NEWEST
from tests.servers.node import KEEPS_NOTHING, Node
from tests.servers.site import Site
from tests.support import eventually

pytestmark = pytest.mark.slow

OWNER = """
    import asyncio, json, subprocess, sys
    from tests.servers.cluster import Cluster

    async def main():
        cluster = Cluster(masters=1, replicas=1)
        for node in cluster.nodes:
            await node.start()
        cluster.nodes[1].pause()
        folder = cluster.nodes[0].folder
        stray = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], cwd=folder)
        pids = [*(node.pid for node in cluster.nodes), stray.pid]
        print(json.dumps([pids, str(folder.parent)]), flush=True)
        await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())
"""


async def test_a_killed_run_leaves_no_server_and_no_file(run_script: ScriptRunner) -> None:
    """Two servers, one of which is suspended, and one process that its watchdog does not know."""
    owner = run_script(OWNER)
    pids, folder = await owner.hear()
    assert Path(folder).exists()
    assert len(pids) == 3

    await asyncio.to_thread(owner.kill)

    await eventually(lambda: all(is_gone(pid) for pid in pids))
    await eventually(lambda: not Path(folder).exists())


async def test_ports_are_free_and_have_room_for_the_clusters_bus() -> None:
    home = Site()
    try:
        ports = [home.free_port() for _ in range(50)]
    finally:
        home.close()

    assert len(set(ports)) == 50
    assert max(ports) + 10_000 <= 65_535
    assert not home.folder.exists()


async def test_sites_at_the_same_time_never_get_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "HIGHEST_PORT", site.LOWEST_PORT + 200)
    one, other = Site(), Site()
    try:
        ports = [some.free_port() for _ in range(20) for some in (one, other)]
    finally:
        one.close()
        other.close()

    assert len(set(ports)) == 40


async def test_the_port_of_a_node_that_is_down_is_reserved_and_refuses_connections() -> None:
    home = Site()
    node = Node(home, NEWEST, "node-0", KEEPS_NOTHING)
    try:
        await node.start()
        node.kill()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((site.HOST, node.port))
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((site.HOST, node.port))
        await node.start()
    finally:
        node.kill()
        home.close()
