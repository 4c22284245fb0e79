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
    """Is this node withdrawn by its operator, drained, or both?

    `withdrawn` is an order of its own: who is only drained comes back where nobody else is left.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self.drained = self._is_there(DRAINED)
        self.withdrawn = self._is_there(WITHDRAWN)

    @property
    def held(self) -> bool:
        """True while it is withdrawn, for whichever reason."""
        return self.withdrawn or self.drained

    def hold(self, *, drained: bool) -> None:
        """Remember it; what can't be written is held as long as the parent lives.

        A drained node that is withdrawn once more is still drained.
        """
        if drained:
            self.drained, name, until = True, DRAINED, "undrain"
        else:
            self.withdrawn, name, until = True, WITHDRAWN, "announce"
        try:
            (self._run_dir / name).write_text(f"by the operator, until `popctl {until}`\n")
        except OSError as error:
            log.warning("withdrawn, but not over a restart", extra={"problem": str(error)})

    def release(self) -> None:
        """Forget it."""
        self.withdrawn = self.drained = False
        try:
            for name in (DRAINED, WITHDRAWN):
                (self._run_dir / name).unlink(missing_ok=True)
        except OSError as error:
            log.warning("announced, but not over a restart", extra={"problem": str(error)})

    def _is_there(self, name: str) -> bool:
        path = self._run_dir / name
        return path.is_symlink() or path.exists()
