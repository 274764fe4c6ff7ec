"""How far a run is, and Ctrl-C: what stands between a training loop and the person who watches it."""

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from tqdm import tqdm

from neurodyn import parallel

log = logging.getLogger(__name__)

LOG_EVERY = 10  # steps between looks at the loss: each look makes a GPU wait, so not every step


class Progress:
    """A bar with the time left on a terminal; otherwise ten lines in the log over the run."""

    def __init__(self, steps: int, wanted: bool, done: int) -> None:
        first = parallel.rank() == 0
        self.steps, self.start, self.began = steps, done, time.monotonic()
        shown = first and wanted and sys.stderr.isatty() and log.isEnabledFor(logging.WARNING)  # not where it is quiet
        self.bar = tqdm(total=steps, initial=done, desc="fit", unit="step") if shown else None
        self.lines = first and not shown

    def show(self, step: int, history: list[dict[str, Any]]) -> None:
        """Show how far the run is, with the newest loss and validation."""
        every = max(LOG_EVERY, self.steps // 10 // LOG_EVERY * LOG_EVERY)
        look = step % LOG_EVERY == 0 or step == self.steps
        newest: dict[str, str] = {}
        for key in ("objective", "validation") if look else ():  # a fit without validation rows says nothing of them
            values = [r[key] for r in history[-50:] if r.get(key) is not None]
            newest |= {key: f"{values[-1]:.4g}"} if values else {}
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
            if look:
                self.bar.set_postfix(newest, refresh=False)
        elif self.lines and (step % every == 0 or step == self.steps):
            left = (time.monotonic() - self.began) / (step - self.start) * (self.steps - step)
            said = "".join(f" {key} {value}," for key, value in newest.items())
            log.info("step %d of %d:%s %.0f s left", step, self.steps, said, left)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second raises. Only a main thread can watch for signals."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        log.warning("interrupted: stopping after this step (Ctrl-C again to stop at once)")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
