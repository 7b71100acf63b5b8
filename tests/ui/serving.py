"""`derive up` on a free port, as it is, but for two things: `python -m tests.ui.serving STORE REAL_DEPLOYMENT`.

All presets but one are built by quick stage commands, and newly installed verifiers are looked for every two seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from flows import catalogue, serve
from flows.store import Store

QUICK = "tests.ui.quick_flow.derive"


def main(root: Path, real: str) -> int:
    """Serve until Ctrl-C."""
    make = catalogue.deployments

    def deployments(store: Store) -> list[Any]:
        made = make(store)
        for one in made:
            if one.flow_name == "derive" and one.name != real:
                one.entrypoint = QUICK
        return made

    catalogue.deployments = deployments
    serve.RENEW_EVERY_S = 2.0
    return serve.serve_presets(Store(root), 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
