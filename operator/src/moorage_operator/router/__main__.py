"""`moorage-router agent` and `moorage-router haproxy`: the two containers of a router pod, of one image."""

from __future__ import annotations

import os
import sys

from moorage_operator.router import launcher, settings

_USAGE = "moorage-router: say `moorage-router agent` or `moorage-router haproxy`"


def main() -> None:
    chosen = settings.load(os.environ)
    match sys.argv[1:]:
        case ["haproxy"]:
            raise SystemExit(launcher.run(chosen))
        case ["agent"]:
            # Only here: beside HAProxy nothing of this is needed in memory.
            from moorage_operator.router import process  # noqa: PLC0415 - see above

            process.main(chosen)
        case _:
            raise SystemExit(_USAGE)


if __name__ == "__main__":
    main()
