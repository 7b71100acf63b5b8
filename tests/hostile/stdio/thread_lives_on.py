# ruff: noqa
# fmt: off
"""Ends, but for a thread that does not."""

import threading
import time

threading.Thread(target=time.sleep, args=(600,)).start()
