"""Nothing of a fleet outlives the process that made it, however that ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.embedded_scripts import ScriptRunner, is_gone
from tests.servers.site import Site
from tests.support import eventually

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
    """Two servers, one of which stands still, and one its keeper was not told of."""
    owner = run_script(OWNER)
    pids, folder = await owner.hear()
    assert Path(folder).exists()
    assert len(pids) == 3

    await asyncio.to_thread(owner.kill)

    await eventually(lambda: all(is_gone(pid) for pid in pids))
    await eventually(lambda: not Path(folder).exists())


async def test_ports_are_free_and_have_room_for_the_clusters_bus() -> None:
    site = Site()
    try:
        ports = [site.free_port() for _ in range(50)]
    finally:
        site.close()

    assert len(set(ports)) == 50
    assert max(ports) + 10_000 <= 65_535
    assert not site.folder.exists()
