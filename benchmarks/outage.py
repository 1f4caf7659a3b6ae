"""The API server is away for minutes: when does the holder let go, and how soon after its return is all well?

Run it as ``holdfast lab run -- python benchmarks/outage.py [SECONDS]``.
"""

from __future__ import annotations

import sys
import time

from common import heading, world

from lab.chaos.scene import Scene
from lab.chaos.trial import watched
from lab.witness.ledger import Ledger

AWAY_S = float(sys.argv[1]) if len(sys.argv) > 1 else 300.0
LEASE_S = 10


def main() -> None:
    """Print the figures."""
    with world() as made, Scene(made, Ledger(made.api), number=90, lease_s=LEASE_S) as scene:

        def away() -> None:
            made.control_plane.api_server.kill()
            time.sleep(AWAY_S)  # what is measured
            made.control_plane.api_server.start()

        trial = watched(scene, "API server away", away, 60.0)
    ends = [each.end_s for each in trial.tenures if each.end_s is not None and each.end_s < trial.healed_s]
    starts = [each.start_s for each in trial.tenures if each.start_s > trial.struck_s]
    print(heading("API server away"))
    print(f"- away for {AWAY_S:g} s, Lease of {LEASE_S} s")
    print(f"- the holder let go {max(ends) - trial.struck_s:.2f} s after the API server was gone" if ends else "- kept")
    if starts:
        print(f"- the address was back {min(starts) - trial.healed_s:+.2f} s after the API server said it is ready")
    print(f"- two holders: {len(trial.overlaps)} times; false frames: {len(trial.false)}; {trial.trouble or 'settled'}")


if __name__ == "__main__":
    main()
