"""The operator's withdrawal, remembered as a file so that it survives the parent.

It lies in run_dir: a node whose supervisor starts it again stays withdrawn until somebody
announces it. Where run_dir does not survive either (a tmpfs over a reboot of the machine,
systemd's RuntimeDirectory without RuntimeDirectoryPreserve), the machine begins anew and
announces. Only whether the file is there counts; what is in it is for people.
"""

import logging
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

NAME: Final = "withdrawn"


class Held:
    """Is this node withdrawn by its operator?"""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / NAME
        self.held = self._path.is_symlink() or self._path.exists()

    def hold(self) -> None:
        """Remember it; what can't be written is held as long as the parent lives."""
        self.held = True
        try:
            self._path.write_text("by the operator, until `popctl announce`\n")
        except OSError as error:
            log.warning("withdrawn, but not over a restart", extra={"problem": str(error)})

    def release(self) -> None:
        """Forget it."""
        self.held = False
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("announced, but not over a restart", extra={"problem": str(error)})
