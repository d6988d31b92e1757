"""Runs the console script in fresh processes that need not import everything again: `python zygote.py`.

Reads orders from standard input, one JSON object a line: arguments, folder, environment, and the paths of files for
standard input, output and error. Forks for each, runs `control.cli.main` in the child, and answers with its exit code.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import control.app
import control.cli.portrait
import control.runtime.worker
import control.store.listing
import control.store.writers
from control.cli import main

PRELOADED = (control.app, control.cli.portrait, control.runtime.worker, control.store.listing, control.store.writers)


def become(order: dict[str, Any]) -> int:
    """Be the process that was ordered, to its end."""
    for number, path, flags in ((0, order["given"], os.O_RDONLY), (1, order["out"], os.O_WRONLY),
                                (2, order["err"], os.O_WRONLY)):  # fmt: skip
        os.dup2(os.open(path, flags), number)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    sys.argv = ["control", *order["arguments"]]
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, m, encoding="utf-8") for n, m in ((0, "r"), (1, "w"), (2, "w")))
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    return 255


for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = become(json.loads(line))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
