"""An index of what the files of many runs say, in one file of the cache folder that is fast to read.

A listing of thousands of runs would spend nearly all its time in reading YAML. The index holds plain content only, so
each version of genexp makes of it what it makes of the file. Nothing is written into the run directories.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from genexp.storage.files import atomic, cache_folder, make_folder, read_json_lines

FORMAT = 1  # to be raised when the content that is kept of a file becomes another
Stamp = list[int]  # a file's time in nanoseconds, its size and its inode: a file that is replaced gets others


class Index:
    """The content of the files below a folder when they were read last. Use it within `with`: it is kept at the end."""

    def __init__(self, folder: Path) -> None:
        name = hashlib.sha256(f"{FORMAT} {folder.resolve()}".encode(errors="surrogateescape")).hexdigest()[:16]
        self.file = cache_folder("runs") / f"{name}.jsonl"
        self.prefix = len(str(folder)) + 1
        self.known: dict[str, tuple[Stamp, Any]] = {}
        self.used: set[str] = set()
        self.added: list[str] = []  # lines for files that are new or have changed

    def __enter__(self) -> "Index":
        lines = read_json_lines(self.file)
        for line in lines:  # a later line is of a later version of its file
            with suppress(KeyError, TypeError):  # of a line that is damaged
                self.known[line["file"]] = line["stamp"], line["content"]
        self.lines = len(lines)
        return self

    def content(self, file: Path, read: Callable[[Path], Any]) -> Any:
        """Return what `read` returns of a file, as JSON holds it; None if there is no such file.

        It is read only if the file's time, size or inode is another than when it was read last.
        """
        try:
            status = file.stat()
        except OSError:
            return None
        stamp = [status.st_mtime_ns, status.st_size, status.st_ino]
        name = str(file)[self.prefix :]
        self.used.add(name)
        if name in self.known and self.known[name][0] == stamp:
            return self.known[name][1]
        content = read(file)
        with suppress(TypeError, ValueError):  # of content that JSON does not hold
            line = json.dumps({"file": name, "stamp": stamp, "content": content})
            if json.loads(line)["content"] == content:  # keys may have been numbers
                self.known[name] = stamp, content
                self.added.append(line)
        return content

    def __exit__(self, *_: object) -> None:
        """Add what is new to the file, or write the file anew if most of its lines are of no use any more."""
        stale = self.lines + len(self.added) > 2 * len(self.used) + 100
        with suppress(OSError):  # it is a cache: without it, files are read again
            if stale:
                entries = [
                    {"file": name, "stamp": stamp, "content": content} for name, (stamp, content) in self._live()
                ]
                with atomic(self.file) as stream:
                    stream.write("".join(f"{json.dumps(entry)}\n" for entry in entries).encode())
            elif self.added:
                make_folder(self.file.parent)
                with self.file.open("ab") as stream:  # one write, so that two processes do not mix their lines
                    stream.write(("\n" + "\n".join(self.added) + "\n").encode())

    def _live(self) -> list[tuple[str, tuple[Stamp, Any]]]:
        return [(name, entry) for name, entry in self.known.items() if name in self.used]
