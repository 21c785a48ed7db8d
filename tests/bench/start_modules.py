"""`otabrake serve`, which on SIGUSR1 prints the names of the installed modules that it has imported."""

from __future__ import annotations

import json
import signal
import sys
import sysconfig


def _installed() -> list[str]:
    """In the order of their first import; only such that can be imported by that name."""
    places = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    names = []
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if spec is not None and spec.name == name and (spec.origin or "").startswith(places):
            names.append(name)
    return names


def _main() -> None:
    def tell(*_: object) -> None:
        print(json.dumps(_installed()), flush=True)

    signal.signal(signal.SIGUSR1, tell)
    sys.argv[1:] = ["serve"]
    from bot.cli import main

    main()


if __name__ == "__main__":
    _main()
