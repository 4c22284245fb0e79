"""Any order of arrivals, crashes, holds, maps and evictions on a real disk: never a byte over the budget."""

import asyncio
import contextlib
import logging
import mmap
import os
import shutil
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.errors import EdgeError
from edge.policy.worth import worth
from edge.weights import unlinked
from edge.weights.disk import Disk
from edge.weights.flights import Flights
from edge.weights.ingest import Ingest, ingest_bytes
from edge.weights.layout import blob_key, ingest_key
from edge.weights.store import Store
from tests.support.blobs import blob_file

#: Bytes of the blobs that come and go; what all of them take is more than any budget.
SIZES = (1, 4_096, 9_000, 20_000)
CHUNK = 1 << 13
CONTENTS = [bytes([n + 1]) * size for n, size in enumerate(SIZES)]
FILES = [blob_file(f"w{n}", content, chunk_bytes=CHUNK) for n, content in enumerate(CONTENTS)]
#: `node.json` of a node called n.
NODE_BYTES = 42
NUMBERS = st.integers(0, len(FILES) - 1)
#: Memory, where there is some: thousands of syncs take a while on a disk.
SHM = Path("/dev/shm")  # noqa: S108 -- a directory of our own is made in it


class Worths:
    """An appraiser whose opinion changes with every question: no order may break the budget."""

    def __init__(self) -> None:
        self.asked = 0

    def survey(self, _now_ms: float, _blobs: Any) -> Any:
        self.asked += 1
        return lambda key, size: worth(size, float((ord(key[-1]) + self.asked) % 7), 1.0)


class AnyOrder(RuleBasedStateMachine):
    """One owner of one store. `mapped` are maps as workers have them, `arriving` what is on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.threads = ThreadPoolExecutor(2)
        self.root = Path(tempfile.mkdtemp(dir=SHM if SHM.is_dir() else None))
        self.arriving: dict[int, Ingest] = {}
        self.mapped: list[tuple[int, mmap.mmap]] = []
        #: Blobs of which an earlier file is mapped that has no name any more.
        self.unlinked: set[int] = set()
        self.holds: Counter[int] = Counter()
        self.clean = True

    @initialize(numbers=st.lists(NUMBERS, min_size=1, max_size=4), more=st.integers(-1, 1))
    def begin(self, numbers: list[int], more: int) -> None:
        """A budget that fits some of them to the byte, or is a byte off."""
        self.capacity = NODE_BYTES + sum(ingest_bytes(FILES[number]) for number in numbers) + more
        self._open()

    def _open(self) -> None:
        flights = Flights(self.runner.get_loop().create_task)
        self.disk = Disk(Store(self.root, "n"), self.capacity, self.threads, flights)
        self.disk.appraiser = Worths()  # type: ignore[assignment]
        self.disk.appraiser.begin = lambda _: None  # type: ignore[method-assign]
        self.runner.run(self.disk.open(lambda _: None))

    def teardown(self) -> None:
        for _, one in self.mapped:
            one.close()
        for ingest in self.arriving.values():
            ingest.close()
        if hasattr(self, "disk"):
            self.disk.store.close(clean=False)
        self.threads.shutdown()
        self.runner.close()
        shutil.rmtree(self.root)

    def here(self, number: int) -> bool:
        return blob_key(FILES[number].blake3) in self.disk.ledger

    # --- on its way

    async def _reserve(self, number: int) -> bool:
        """As a fetch does: pin, make room, enter, and only then write."""
        file, ledger = FILES[number], self.disk.ledger
        key = ingest_key(file.blake3)
        async with self.disk.lock:
            if number in self.arriving or self.here(number):
                return False
            ledger.pin(key)
            try:
                await self.disk.make_room(ingest_bytes(file) - ledger.size_bytes(key), file.name)
            except EdgeError:
                ledger.unpin(key, 0.0)
                return False
            ledger.put(key, ingest_bytes(file), 0.0)
        self.arriving[number] = self.disk.store.open_ingest(file)
        return True

    @rule(numbers=st.lists(NUMBERS, min_size=1, max_size=3, unique=True))
    def reserve(self, numbers: list[int]) -> None:
        async def together() -> None:
            await asyncio.gather(*map(self._reserve, numbers))

        self.runner.run(together())

    @precondition(lambda self: self.arriving)
    @rule(data=st.data(), chunks=st.integers(1, 5))
    def write(self, data: st.DataObject, chunks: int) -> None:
        ingest = self.arriving[data.draw(st.sampled_from(sorted(self.arriving)))]
        self._write(ingest, chunks)

    def _write(self, ingest: Ingest, chunks: int) -> None:
        for index in ingest.missing()[:chunks]:
            at, end = ingest.bounds(index)
            ingest.write(at, CONTENTS[FILES.index(ingest.file)][at:end])
            ingest.mark(index)

    @precondition(lambda self: self.arriving)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self._end(data.draw(st.sampled_from(sorted(self.arriving))))

    @rule(number=NUMBERS)
    def bring(self, number: int) -> None:
        """All of it at once."""
        if self.runner.run(self._reserve(number)):
            self._write(self.arriving[number], 99)
            self._end(number)

    def _end(self, number: int) -> None:
        """Commit what is whole, give up what is not: it stays for the next attempt or to be evicted."""
        ingest, ledger = self.arriving.pop(number), self.disk.ledger
        key = ingest_key(ingest.file.blake3)
        if not ingest.missing():
            self.disk.store.commit(ingest)
            ledger.put(blob_key(ingest.file.blake3), ingest.file.size_bytes, 0.0)
            ledger.drop(key)
        ingest.close()
        if key in ledger:
            ledger.put(key, self.disk.store.size_bytes(key), 0.0)
        ledger.unpin(key, 0.0)

    # --- in use

    @rule(number=NUMBERS)
    def hold(self, number: int) -> None:
        if self.here(number):
            self.disk.ledger.pin(blob_key(FILES[number].blake3))
            self.holds[number] += 1

    @rule(number=NUMBERS)
    def release(self, number: int) -> None:
        if self.holds[number]:
            self.holds[number] -= 1
            self.disk.ledger.unpin(blob_key(FILES[number].blake3), 0.0)

    @rule(number=NUMBERS)
    def map(self, number: int) -> None:
        self._map(number)

    def _map(self, number: int) -> None:
        if self.here(number):
            with self.disk.store.blob_path(FILES[number].blake3).open("rb") as file:
                self.mapped.append((number, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
            self._grip(number)

    def _grip(self, number: int) -> None:
        """As who holds it for a worker does."""
        digest = FILES[number].blake3
        self.disk.store.unlinked.grip({blob_key(digest): self.disk.store.blob_path(digest)})

    @precondition(lambda self: self.mapped)
    @rule()
    def unmap(self) -> None:
        self.mapped.pop(0)[1].close()

    # --- going

    @rule(numbers=st.lists(NUMBERS, min_size=1, max_size=3, unique=True))
    def drop(self, numbers: list[int]) -> None:
        self.runner.run(self.disk.drop([blob_key(FILES[number].blake3) for number in numbers]))

    @rule(number=NUMBERS)
    def unlinked_while_it_is_mapped(self, number: int) -> None:
        """A worker maps the blob in the instant of its unlink: behind the look, before the deed."""
        self._map(number)
        key = blob_key(FILES[number].blake3)
        if self.here(number) and not self.disk.ledger.pinned(key):
            self.unlinked.add(number)
            look, early = unlinked.is_open_elsewhere, [False]
            unlinked.is_open_elsewhere = lambda fd: early.pop() if early else look(fd)
            try:
                self.runner.run(self.disk.drop([key]))
            finally:
                unlinked.is_open_elsewhere = look

    @rule(number=NUMBERS)
    def set_aside(self, number: int) -> None:
        if self.here(number) and not self.holds[number]:
            self.unlinked.add(number)
            digest = FILES[number].blake3
            self.runner.run(self.disk.set_aside(blob_key(digest), digest))

    @rule(number=NUMBERS, mapped=st.booleans())
    def removed_by_hand(self, number: int, *, mapped: bool) -> None:
        if mapped:
            self._map(number)
        if self.here(number) and not self.holds[number]:
            self.unlinked.add(number)
            self.disk.store.blob_path(FILES[number].blake3).unlink()
            self.runner.run(self.disk.sweep())
            assert not self.here(number)

    @rule(size=st.integers(1, 3_000))
    def small_file(self, size: int) -> None:
        def write() -> str:
            self.disk.store.write_manifest("0" * 64, b"x" * size)
            return f"manifests/{'0' * 64}.json"

        with contextlib.suppress(EdgeError):
            self.runner.run(self.disk.keep(write, size, "a manifest"))

    @rule()
    def sweep(self) -> None:
        self.runner.run(self.disk.sweep())

    @rule(clean=st.booleans())
    def end_and_start_again(self, *, clean: bool) -> None:
        """All holds end with the process. Maps are other processes' and outlive it; those of unlinked
        files are closed here, as what an earlier process unlinked is in nobody's book.
        """
        kept = [pair for pair in self.mapped if pair[0] not in self.unlinked and self.here(pair[0])]
        for _, one in (pair for pair in self.mapped if pair not in kept):
            one.close()
        self.mapped = kept
        self.unlinked.clear()
        for ingest in self.arriving.values():
            ingest.close()
        self.arriving.clear()
        self.holds.clear()
        self.disk.store.close(clean=clean)
        self._open()
        for number, _ in self.mapped:
            self._grip(number)

    # --- what is always so

    @invariant()
    def never_a_byte_too_many(self) -> None:
        if not hasattr(self, "disk"):
            return
        ledger = self.disk.ledger
        on_disk = sum(path.lstat().st_size for path in self.root.rglob("*") if path.is_file())
        assert (self.root / "node.json").stat().st_size - NODE_BYTES in (0, -1)
        assert on_disk + self._unlinked_bytes() <= ledger.used_bytes <= self.capacity

    def _unlinked_bytes(self) -> int:
        """What is mapped and has no name any more: once per inode, as the kernel counts it."""
        maps = Path("/proc/self/maps").read_text().splitlines()
        gone = {line.split()[4] for line in maps if str(self.root) in line and line.endswith("(deleted)")}
        sizes = {line.split()[4]: Path(line.split()[5]).name for line in maps if len(line.split()) > 5}
        by_digest = {file.blake3: file.size_bytes for file in FILES}
        return sum(by_digest.get(sizes[inode], 0) for inode in gone)

    @invariant()
    def what_is_held_is_there_and_what_is_mapped_can_be_read(self) -> None:
        if not hasattr(self, "disk"):
            return
        for number in +self.holds:
            info = os.lstat(self.disk.store.blob_path(FILES[number].blake3))
            assert info.st_size == FILES[number].size_bytes
        for number, one in self.mapped:
            assert one[:] == CONTENTS[number]


#: A smaller example would take minutes to find: each step is real.
NOT_SHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)
TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=50, deadline=None, phases=NOT_SHRUNK)


def test_the_log_says_what_went_for_whom_and_what_it_was_worth(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    machine = AnyOrder()
    try:
        machine.begin([3], 0)
        machine.bring(1)
        machine.bring(3)
    finally:
        machine.teardown()
    gone = [record.getMessage() for record in caplog.records if "evicted" in record.getMessage()]
    assert len(gone) == 1
    assert gone[0].startswith(
        f"evicted {blob_key(FILES[1].blake3)} (4096 bytes, freed) so that {ingest_bytes(FILES[3])} more fit for w3"
    )
    assert gone[0].endswith("1.00 s to have again")
