"""A file system that shows another folder through a write-back cache of its own, as a client of a file server does.

The kernel keeps written pages until it flushes whole pages, and never asks whether the file has changed meanwhile. Two
such mounts of one folder are two clients that overwrite each other's bytes in a page that both write.

Usage:
    python writeback.py FOLDER MOUNT_POINT        returns when it is mounted; ends when it is unmounted

It speaks the kernel's protocol (linux/fuse.h, version 7.31) and needs root, but no library. Only what scimill and HDF5
call is there. Opening a file drops its cached pages, as it does on NFS.
"""

import errno
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HEADER, REPLY = struct.Struct("=IIQQIII4x"), struct.Struct("=IiQ")
ATTRIBUTES = struct.Struct("=6Q10I")
ROOT, PAGES, WRITE_BYTES = 1, 32, 128 << 10
BIG_WRITES, WRITEBACK_CACHE, MAX_PAGES = 1 << 5, 1 << 16, 1 << 22
SETS_MODE, SETS_SIZE, SETS_TIMES, SETS_BY_DESCRIPTOR = 1, 8, 16 | 32, 64
HAS_DESCRIPTOR = 1
WITHOUT_REPLY = (2, 36, 42)  # FORGET, INTERRUPT, BATCH_FORGET


class WriteBack:
    """The folder behind one mount. Each method of `CALLS` takes a node and the call's data, and returns the reply."""

    def __init__(self, folder: Path) -> None:
        self._paths = {ROOT: folder}
        self._nodes = {folder.stat().st_ino: ROOT}

    def serve(self, device: int) -> None:
        """Answer the kernel until the mount is gone."""
        while True:
            try:
                request = os.read(device, WRITE_BYTES + 8192)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                if error.errno in (errno.ENOENT, errno.EINTR):  # the caller was interrupted
                    continue
                raise
            _, code, unique, node, *_ = HEADER.unpack_from(request)
            if code not in WITHOUT_REPLY:
                os.write(device, self._reply(code, unique, node, request[HEADER.size :]))

    def _reply(self, code: int, unique: int, node: int, data: bytes) -> bytes:
        try:
            content, error = (
                CALLS[code](self, node, data) if code in CALLS else b"",
                0 if code in CALLS else errno.ENOSYS,
            )
        except OSError as failure:
            content, error = b"", failure.errno or errno.EIO
        return REPLY.pack(REPLY.size + len(content), -error, unique) + content

    def initialize(self, _: int, data: bytes) -> bytes:
        flags = BIG_WRITES | WRITEBACK_CACHE | MAX_PAGES
        read_ahead = struct.unpack_from("=I", data, 8)[0]
        return struct.pack("=4I2H2I2H32x", 7, 31, read_ahead, flags, 12, 9, WRITE_BYTES, 1, PAGES, 0)

    # ---- names --------------------------------------------------------------------------------------------------

    def look_up(self, parent: int, data: bytes) -> bytes:
        return self._entry(self._path(parent, data))

    def _path(self, parent: int, name: bytes) -> Path:
        return self._paths[parent] / os.fsdecode(name.rstrip(b"\0"))

    def _entry(self, path: Path) -> bytes:
        """Describe a file by name; names and attributes are valid for this call only."""
        found = path.lstat()
        node = self._nodes.setdefault(found.st_ino, max(self._paths) + 1)
        self._paths[node] = path
        return struct.pack("=4Q2I", node, 0, 0, 0, 0, 0) + _attributes(found)

    def make_folder(self, parent: int, data: bytes) -> bytes:
        path = self._path(parent, data[8:])
        path.mkdir(struct.unpack_from("=I", data)[0])
        return self._entry(path)

    def unlink(self, parent: int, data: bytes) -> bytes:
        self._path(parent, data).unlink()
        return b""

    def remove_folder(self, parent: int, data: bytes) -> bytes:
        self._path(parent, data).rmdir()
        return b""

    def rename(self, parent: int, data: bytes, skip: int = 8) -> bytes:
        old, new = data[skip:].split(b"\0")[:2]
        source, target = self._path(parent, old), self._path(struct.unpack_from("=Q", data)[0], new)
        source.rename(target)
        self._entry(target)
        return b""

    def rename_2(self, parent: int, data: bytes) -> bytes:
        if struct.unpack_from("=I", data, 8)[0]:
            raise OSError(errno.EINVAL, "flags")
        return self.rename(parent, data, 16)

    def read_folder(self, node: int, data: bytes) -> bytes:
        _, offset, size = struct.unpack_from("=QQI", data)
        content = b""
        for number, name in enumerate(sorted(os.listdir(self._paths[node]))[offset:], offset + 1):  # noqa: PTH208
            word = os.fsencode(name)
            entry = struct.pack("=QQII", 1, number, len(word), 0) + word
            entry += bytes(-len(entry) % 8)
            if len(content) + len(entry) > size:
                break
            content += entry
        return content

    # ---- files --------------------------------------------------------------------------------------------------

    def get_attributes(self, node: int, data: bytes) -> bytes:
        flags, descriptor = struct.unpack_from("=I4xQ", data)
        return _attributes_reply(descriptor if flags & HAS_DESCRIPTOR else self._paths[node])

    def set_attributes(self, node: int, data: bytes) -> bytes:
        valid, descriptor, size = struct.unpack_from("=I4xQQ", data)
        # A file that is open may have no name any more.
        target = descriptor if valid & SETS_BY_DESCRIPTOR else self._paths[node]
        if valid & SETS_SIZE:
            os.truncate(target, size)
        if valid & SETS_MODE:
            os.chmod(target, struct.unpack_from("=I", data, 68)[0])  # noqa: PTH101 - may be a descriptor
        if valid & SETS_TIMES:
            self._set_times(target, data)
        return _attributes_reply(target)

    @staticmethod
    def _set_times(target: Path | int, data: bytes) -> None:
        seconds, parts = struct.unpack_from("=2Q", data, 32), struct.unpack_from("=2I", data, 56)
        accessed, modified = (second * 10**9 + part for second, part in zip(seconds, parts, strict=True))
        os.utime(target, ns=(accessed or modified, modified or accessed))

    def open(self, node: int, data: bytes) -> bytes:
        # The kernel reads pages that a writer fills in part, so every file is opened for both.
        del data
        return struct.pack("=QII", os.open(self._paths[node], os.O_RDWR), 0, 0)

    def open_folder(self, node: int, data: bytes) -> bytes:
        del node, data
        return struct.pack("=QII", 0, 0, 0)

    def create(self, parent: int, data: bytes) -> bytes:
        flags, mode = struct.unpack_from("=II", data)
        path = self._path(parent, data[16:])
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | flags & os.O_EXCL, mode)
        return self._entry(path) + struct.pack("=QII", descriptor, 0, 0)

    def read(self, _: int, data: bytes) -> bytes:
        descriptor, offset, size = struct.unpack_from("=QQI", data)
        return os.pread(descriptor, size, offset)

    def write(self, _: int, data: bytes) -> bytes:
        descriptor, offset, size = struct.unpack_from("=QQI", data)
        return struct.pack("=I4x", os.pwrite(descriptor, data[40 : 40 + size], offset))

    def allocate(self, _: int, data: bytes) -> bytes:
        descriptor, offset, length, mode = struct.unpack_from("=QQQI", data)
        if mode:
            raise OSError(errno.EOPNOTSUPP, "mode")
        os.posix_fallocate(descriptor, offset, length)
        return b""

    def sync(self, _: int, data: bytes) -> bytes:
        os.fsync(struct.unpack_from("=Q", data)[0])
        return b""

    def close(self, _: int, data: bytes) -> bytes:
        os.close(struct.unpack_from("=Q", data)[0])
        return b""

    def nothing(self, _: int, data: bytes) -> bytes:
        del data
        return b""

    def statistics(self, node: int, _: bytes) -> bytes:
        found = os.statvfs(self._paths[node])
        numbers = (found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree)
        return struct.pack("=5Q4I24x", *numbers, found.f_bsize, found.f_namemax, found.f_frsize, 0)


CALLS: dict[int, Callable[[WriteBack, int, bytes], bytes]] = {
    1: WriteBack.look_up, 3: WriteBack.get_attributes, 4: WriteBack.set_attributes, 9: WriteBack.make_folder,
    10: WriteBack.unlink, 11: WriteBack.remove_folder, 12: WriteBack.rename, 14: WriteBack.open, 15: WriteBack.read,
    16: WriteBack.write, 17: WriteBack.statistics, 18: WriteBack.close, 20: WriteBack.sync, 25: WriteBack.nothing,
    26: WriteBack.initialize, 27: WriteBack.open_folder, 28: WriteBack.read_folder, 29: WriteBack.nothing,
    30: WriteBack.nothing, 35: WriteBack.create, 43: WriteBack.allocate, 45: WriteBack.rename_2,
}  # fmt: skip


def _attributes_reply(target: Path | int) -> bytes:
    return struct.pack("=QII", 0, 0, 0) + _attributes(os.stat(target))  # noqa: PTH116 - may be a descriptor


def _attributes(found: os.stat_result) -> bytes:
    times = [divmod(ns, 10**9) for ns in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)]
    kind = (found.st_mode, found.st_nlink, found.st_uid, found.st_gid, found.st_rdev, found.st_blksize, 0)
    seconds, parts = zip(*times, strict=True)
    return ATTRIBUTES.pack(found.st_ino, found.st_size, found.st_blocks, *seconds, *parts, *kind)


def main(folder: str, mount_point: str) -> None:
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode={stat.S_IFDIR:o},user_id=0,group_id=0,allow_other"
    # -i: fuse's own mount program is not needed.
    subprocess.run(
        ["mount", "-i", "-t", "fuse", "-o", options, "writeback", mount_point], pass_fds=[device], check=True
    )
    if os.fork() == 0:
        os.setsid()
        for stream in range(3):
            os.dup2(os.open(os.devnull, os.O_RDWR), stream)
        WriteBack(Path(folder)).serve(device)


if __name__ == "__main__":
    main(*sys.argv[1:])
