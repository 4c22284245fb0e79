"""The store on a real disk: layout, what a start finds, eviction beside real maps, a full disk."""

import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from edge.errors import EdgeError, Reason
from edge.weights import store as store_module
from edge.weights import unlinked
from edge.weights.ingest import journal_bytes
from edge.weights.layout import blob_key, ingest_key, manifest_key
from edge.weights.manifest import digest
from edge.weights.store import Store
from edge.weights.unlinked import Gone
from tests.support.blobs import Bucket, blob_file

CHUNK = 1 << 16


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", "n")
    store.open()
    yield store
    store.close(clean=True)


def ingest(store: Store, content: bytes) -> str:
    """Put a blob into the store as a fetch does."""
    file = blob_file("w", content, chunk_bytes=CHUNK)
    arriving = store.open_ingest(file)
    try:
        assert arriving.missing() == list(range(len(file.chunks)))
        arriving.write(0, content)
        for index in range(len(file.chunks)):
            arriving.mark(index)
        assert arriving.missing() == []
        assert arriving.digest() == file.blake3
        store.commit(arriving)
    finally:
        arriving.close()
    return file.blake3


def test_a_blob_is_here_though_its_journal_can_not_go(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(store, "_discard", fail)
    assert store.verify(ingest(store, b"x" * 100))


def test_every_directory_can_be_read_by_workers_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        store = Store(tmp_path / "deep" / "store", "n")
        store.open()
        blob = ingest(store, b"x" * 100)
        store.write_manifest("0" * 64, b"{}")
    finally:
        os.umask(before)
    store.close(clean=True)
    for name in ("blobs", "manifests", "ingest", "quarantine"):
        assert (store.root / name).stat().st_mode & 0o777 == 0o755
    assert store.blob_path(blob).stat().st_mode & 0o777 == 0o444
    assert (store.root / manifest_key("0" * 64)).stat().st_mode & 0o777 == 0o644


def test_a_second_owner_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "LOCK_WAIT_S", 0.1)
    with pytest.raises(EdgeError, match="in use by another process"):
        Store(store.root, "n").open()


def test_an_owner_that_ends_soon_is_waited_for(store: Store) -> None:
    successor = Store(store.root, "n")
    with ThreadPoolExecutor(1) as threads:
        opened = threads.submit(successor.open)
        assert wait([opened], timeout=0.15).not_done
        store.close(clean=True)
        assert opened.result(timeout=3).clean
    successor.close(clean=True)


def test_a_clean_stop_is_known_and_any_other_end_too(tmp_path: Path) -> None:
    for end, clean_before in ((True, True), (False, True), (True, False)):
        store = Store(tmp_path, "n")
        assert store.open().clean is clean_before
        store.close(clean=end)


def test_an_unreadable_marker_is_an_unclean_stop_and_a_newer_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text("{torn")
    store = Store(tmp_path, "n")
    assert not store.open().clean
    store.close(clean=True)
    (tmp_path / "node.json").write_text('{"layout": 2, "clean": true}')
    with pytest.raises(EdgeError, match="layout 2"):
        Store(tmp_path, "n").open()


def test_a_store_that_cannot_be_made_says_where_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeError, match="must be a directory that the weights user may write"):
        Store(tmp_path / "file" / "store", "n").open()


def test_a_start_looks_before_it_drops_anything(tmp_path: Path) -> None:
    published = Bucket(tmp_path / "origin").publish()
    store = Store(tmp_path / "store", "n")
    store.open()
    blob = ingest(store, b"x" * 1000)
    store.write_manifest(published.digest, published.raw)
    store.write_catalogue(b"{}")
    unfinished = blob_file("u", b"y" * (2 * CHUNK + 5), chunk_bytes=CHUNK)
    store.open_ingest(unfinished).close()
    store.close(clean=True)
    root = store.root
    (root / "ingest" / ("1" * 64)).mkdir()
    (root / "ingest" / ("1" * 64) / "journal").write_bytes(b"left by a crash behind the rename")
    (root / "manifests" / "torn.json.tmp").write_bytes(b"{")
    (root / "quarantine" / f"{'d' * 64}.3.tmp").write_bytes(b"half a chunk")
    (root / manifest_key("2" * 64)).write_bytes(b"not what its name says")
    (root / "blobs" / "notes.txt").write_bytes(b"hello")
    (root / "blobs" / ("3" * 64)).symlink_to("/etc/passwd")
    (root / "lost+found").mkdir()

    store = Store(root, "n")
    found = store.open()
    store.close(clean=True)
    assert list(found.manifests) == [published.digest]
    assert found.catalogue == b"{}"
    expected = {
        blob_key(blob): 1000,
        manifest_key(published.digest): len(published.raw),
        ingest_key(unfinished.blake3): unfinished.size_bytes + journal_bytes(3),
        "strangers/catalog.json": 2,
        "strangers/blobs/notes.txt": 5,
        "strangers/lost+found": 0,
    }
    sizes = {key: size for key, size in found.sizes.items() if key in expected}
    assert sizes | {"strangers/catalog.json": found.sizes["catalog.json"]} == expected
    assert not (root / "ingest" / ("1" * 64)).exists()
    assert not (root / "manifests" / "torn.json.tmp").exists()
    assert not list((root / "quarantine").iterdir())
    assert not (root / manifest_key("2" * 64)).exists()
    assert (root / "blobs" / "notes.txt").read_bytes() == b"hello"


def test_a_journal_of_another_layout_is_not_believed(store: Store) -> None:
    content = os.urandom(3 * CHUNK)
    file = blob_file("w", content, chunk_bytes=CHUNK)
    arriving = store.open_ingest(file)
    arriving.write(0, content)
    arriving.mark(1)
    arriving.close()
    again = store.open_ingest(file)
    assert again.missing() == [0, 2]
    again.close()
    other = store.open_ingest(blob_file("w", content, chunk_bytes=CHUNK // 2))
    assert other.missing() == list(range(6))
    other.close()


def test_verify_reads_the_bytes(store: Store) -> None:
    blob = ingest(store, b"x" * 5000)
    assert store.verify(blob)
    path = store.blob_path(blob)
    path.chmod(0o644)
    path.write_bytes(b"x" * 4999 + b"y")
    assert not store.verify(blob)
    assert not store.verify("0" * 64)
    assert store.quarantine(blob_key(blob), blob) == f"quarantine/{blob}"
    assert not path.exists()


@pytest.fixture
def mapper() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that end with the test."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.communicate(b"\n", timeout=10)


def test_a_blob_that_another_process_maps_is_not_evicted_until_it_lets_go(
    store: Store, mapper: list[subprocess.Popen[bytes]]
) -> None:
    blob = ingest(store, b"x" * 5000)
    key = blob_key(blob)
    program = (
        "import mmap, sys\n"
        "with open(sys.argv[1], 'rb') as file:\n"
        "    map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "print('mapped', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(store.blob_path(blob))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    mapper.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"mapped\n"
    assert [one.gone for one in store.evict((key,))] == [Gone.IN_USE]
    assert store.verify(blob)
    process.communicate(b"\n", timeout=10)
    mapper.clear()
    assert [one.gone for one in store.evict((key,))] == [Gone.FREED]
    assert not store.blob_path(blob).exists()


def test_what_is_unlinked_while_it_is_mapped_lingers_until_the_last_unmap(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = ingest(store, b"x" * 5000)
    path = store.blob_path(blob)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # A worker may open it between the look and the unlink: here the first look sees nobody yet.
    look, early = unlinked.is_open_elsewhere, [False]
    monkeypatch.setattr(unlinked, "is_open_elsewhere", lambda fd: early.pop() if early else look(fd))
    evicted = store.evict((blob_key(blob),))[0]
    assert (evicted.gone, evicted.lingers_as) == (Gone.LINGERS, "lingering/1")
    assert not path.exists()
    assert mapped[:3] == b"xxx"
    assert store.sweep() == ()
    mapped.close()
    assert store.sweep() == ("lingering/1",)
    assert store.sweep() == ()


def test_a_shelf_that_somebody_removed_is_put_up_again(store: Store) -> None:
    blob = ingest(store, b"x" * 5000)
    assert store.changed()
    assert not store.changed()
    shutil.rmtree(store.root / "blobs")
    assert store.changed()
    assert store.removed([blob_key(blob)]) == (blob_key(blob),)
    assert ingest(store, b"x" * 5000) == blob
    assert store.changed()
    assert store.removed([blob_key(blob)]) == ()


def test_a_bad_chunk_is_set_aside_alone(store: Store) -> None:
    content = os.urandom(2 * CHUNK + 9)
    file = blob_file("w", content, chunk_bytes=CHUNK)
    arriving = store.open_ingest(file)
    arriving.write(0, content)
    arriving.close()
    assert store.quarantine_chunk(file, 2) == f"quarantine/{file.blake3}.2"
    assert (store.root / f"quarantine/{file.blake3}.2").read_bytes() == content[2 * CHUNK :]
    assert store.quarantine(ingest_key(file.blake3), file.blake3) == f"quarantine/{file.blake3}"
    assert digest((store.root / f"quarantine/{file.blake3}").read_bytes()) == file.blake3
    assert not (store.root / ingest_key(file.blake3)).exists()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    path = tmp_path / "tiny"
    path.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_is_no_space_before_the_first_byte_and_leaves_nothing(tiny_disk: Path) -> None:
    store = Store(tiny_disk, "n")
    store.open()
    try:
        file = blob_file("w", b"x" * (2 << 20), chunk_bytes=CHUNK)
        with pytest.raises(EdgeError, match="the disk is full") as caught:
            store.open_ingest(file)
        assert caught.value.reason is Reason.NO_SPACE
        assert list((tiny_disk / "ingest").iterdir()) == []
        ingest(store, b"x" * (512 << 10))
    finally:
        store.close(clean=True)
