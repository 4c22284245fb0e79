"""What the operator ordered, remembered as files so that it survives the parent.

They lie in run_dir: a node whose supervisor starts it again stays withdrawn, or drained, until
somebody takes it back. Where run_dir does not survive either (a tmpfs over a reboot of the
machine, systemd's RuntimeDirectory without RuntimeDirectoryPreserve), the machine begins anew
and announces. Only whether a file is there counts; what is in it is for people.
"""

import logging
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

WITHDRAWN: Final = "withdrawn"
DRAINED: Final = "drained"


class Held:
    """Is this node withdrawn by its operator, and is that because it was drained?"""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self.drained = self._is_there(DRAINED)
        self.held = self.drained or self._is_there(WITHDRAWN)

    def hold(self, *, drained: bool) -> None:
        """Remember it; what can't be written is held as long as the parent lives.

        A drained node that is withdrawn once more is still drained.
        """
        self.held = True
        self.drained = self.drained or drained
        try:
            (self._run_dir / WITHDRAWN).write_text("by the operator, until `popctl announce`\n")
            if drained:
                (self._run_dir / DRAINED).write_text("by the operator, until `popctl undrain`\n")
        except OSError as error:
            log.warning("withdrawn, but not over a restart", extra={"problem": str(error)})

    def release(self) -> None:
        """Forget it."""
        self.held = self.drained = False
        try:
            for name in (DRAINED, WITHDRAWN):
                (self._run_dir / name).unlink(missing_ok=True)
        except OSError as error:
            log.warning("announced, but not over a restart", extra={"problem": str(error)})

    def _is_there(self, name: str) -> bool:
        path = self._run_dir / name
        return path.is_symlink() or path.exists()
