"""What a power cut may leave of a run, and what becomes of it.

A run is traced by strace; from what it wrote, renamed and synced follows what a disk may hold after a cut at any
instant, as POSIX leaves it: of a file nothing is sure but what was there at its last fsync, of a folder's names nothing
but what they were at the folder's. The command is then given again there, and its end held against an undisturbed one.
"""

import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from faults import GAN, OFTEN, Trial, same

CALLS = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,sendfile,copy_file_range,ftruncate,truncate,lseek,fsync,"
    "fdatasync,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat"
)
WORDS = [*GAN, "epochs=4", "log.every_steps=6"]
CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)")
TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
OPENED = re.compile(r"^(\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>")


@dataclass
class File:
    content: bytes = b""
    durable: bytes = b""


@dataclass
class Folder:
    """Names, and the changes of them since they were last synced."""

    names: dict[str, "File | Folder"] = field(default_factory=dict)
    durable: dict[str, "File | Folder"] = field(default_factory=dict)
    pending: list[Callable[[dict[str, "File | Folder"]], object]] = field(default_factory=list)

    def change(self, change: Callable[[dict[str, "File | Folder"]], object]) -> None:
        change(self.names)
        self.pending.append(change)


class Disk:
    """A folder as a program sees it, and as the disk may hold it; fed with the lines of a trace."""

    def __init__(self, root: Path) -> None:
        """As the folder is now, all of it safe."""
        self.root, self.top = root, _read(root)
        self.offsets: dict[int, int] = {}  # of open files, by descriptor
        self.appending: set[int] = set()

    def inside(self, path: str) -> list[str] | None:
        """The names on the way from the root to this path; None if it is elsewhere."""
        whole = self.root / path  # which git, in a process of its own, means relative to another folder
        known = whole.is_relative_to(self.root) and ".git" not in whole.parts
        return list(whole.relative_to(self.root).parts) if known else None

    def folder(self, parts: list[str]) -> Folder:
        here = self.top
        for part in parts:
            below = here.names[part]
            assert isinstance(below, Folder)
            here = below
        return here

    def file(self, parts: list[str]) -> File:
        found = self.folder(parts[:-1]).names[parts[-1]]
        assert isinstance(found, File)
        return found

    def call(self, line: str) -> bool:
        """Take in a system call; whether it did anything to the folder."""
        match = CALL.match(line)
        if match is None or int(match[3]) < 0:
            return False
        name, arguments, returned = match[1], match[2], int(match[3])
        texts = [_bytes(text) for text in TEXT.findall(arguments)]
        if name in ("open", "openat", "creat"):
            return self.open(self.at(arguments, texts[0].decode()), arguments, returned)
        if name in ("mkdir", "mkdirat", "unlink", "rmdir", "unlinkat"):
            parts = self.inside(self.at(arguments, texts[0].decode()))
            if parts:
                new = Folder()
                makes = name.startswith("mkdir")
                self.folder(parts[:-1]).change(
                    (lambda names: names.update({parts[-1]: new})) if makes else (lambda names: names.pop(parts[-1]))
                )
            return bool(parts)
        if name.startswith("rename"):
            old, new_parts = (self.inside(str(self.root / text.decode())) for text in texts)
            if old is None or new_parts is None:
                assert old is new_parts, line[:200]
                return False
            moved = self.folder(old[:-1]).names[old[-1]]
            source, target = self.folder(old[:-1]), self.folder(new_parts[:-1])
            assert source is target, "a rename between folders is two changes, which may be parted"
            source.change(lambda names: names.update({new_parts[-1]: names.pop(old[-1], moved)}))
            return True
        opened = OPENED.match(arguments)
        path = _bytes(opened[2]).decode() if opened else ""
        parts = self.inside(path) if path.startswith("/") else None
        if parts is None or opened is None:
            return False
        number = int(opened[1])
        if name == "lseek":
            self.offsets[number] = returned
            return False
        if name in ("fsync", "fdatasync"):
            self.sync(parts)
            return True
        file = self.file(parts)
        if name == "write":
            at = len(file.content) if number in self.appending else self.offsets[number]
            data = texts[0][:returned]
            file.content = file.content[:at].ljust(at, b"\0") + data + file.content[at + len(data) :]
            self.offsets[number] = at + len(data)
        elif name == "ftruncate":
            size = int(arguments.rpartition(",")[2])
            file.content = file.content[:size].ljust(size, b"\0")
        else:
            raise NotImplementedError(line[:200])
        return True

    def open(self, path: str, arguments: str, number: int) -> bool:
        parts = self.inside(path)
        if parts is None or "O_DIRECTORY" in arguments:
            return False
        self.offsets[number] = 0
        (self.appending.add if "O_APPEND" in arguments else self.appending.discard)(number)
        if not parts:
            return False
        folder = self.folder(parts[:-1])
        if "O_CREAT" in arguments and parts[-1] not in folder.names:
            made = File()
            folder.change(lambda names: names.update({parts[-1]: made}))
            return True
        if "O_TRUNC" in arguments:
            self.file(parts).content = b""
            return True
        return False

    def at(self, arguments: str, path: str) -> str:
        """A path that may be relative to an open folder."""
        base = OPENED.match(arguments)
        return f"{_bytes(base[2]).decode()}/{path}" if base and not path.startswith("/") else path

    def sync(self, parts: list[str]) -> None:
        here = self.folder(parts[:-1]).names[parts[-1]] if parts else self.top
        if isinstance(here, File):
            here.durable = here.content
        else:
            here.durable, here.pending = dict(here.names), []

    def kill(self, where: Path) -> None:
        """Write what is there if only the program ends now."""
        _write(self.top, where, lambda folder: folder.names, lambda file: file.content)

    def cut(self, rng: random.Random, where: Path) -> None:
        """Write what may be left of the folder after a power cut now."""

        def names(folder: Folder) -> dict[str, File | Folder]:
            left, lost = dict(folder.durable), len(folder.pending)
            for change in folder.pending[: rng.choice((0, lost, rng.randint(0, lost)))]:
                change(left)
            return left

        def content(file: File) -> bytes:
            new, sure = file.content, len(file.durable) if file.content.startswith(file.durable) else 0
            return rng.choice((file.durable, new, new[: rng.randint(sure, len(new))]))

        _write(self.top, where, names, content)


def _read(path: Path) -> Folder:
    there = {
        entry.name: _read(entry) if entry.is_dir() else File(*[entry.read_bytes()] * 2) for entry in path.iterdir()
    }
    return Folder(there, dict(there))


def _write(
    folder: Folder,
    where: Path,
    names: Callable[[Folder], dict[str, File | Folder]],
    content: Callable[[File], bytes],
) -> None:
    where.mkdir(parents=True)
    for name, found in names(folder).items():
        if isinstance(found, Folder):
            _write(found, where / name, names, content)
        else:
            (where / name).write_bytes(content(found))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def can_trace() -> bool:
    found = shutil.which("strace")
    return found is not None and subprocess.run([found, "-f", "true"], capture_output=True).returncode == 0


def trace(folder: Path, command: list[str]) -> list[str]:
    """Run the command in the folder; its system calls, in the order in which they ended."""
    log = folder.parent / "strace.txt"
    tracer = ["strace", "-f", "--seccomp-bpf", "-y", "-xx", "-s", "100000000", "-o", str(log), "-e", f"trace={CALLS}"]
    subprocess.run([*tracer, *command], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    begun: dict[str, str] = {}
    calls = []
    with log.open() as lines:
        for line in lines:
            pid = line.split(" ", 1)[0]
            if "<unfinished ...>" in line:
                begun[pid] = line.split("<unfinished ...>")[0]
            elif " resumed>" in line:
                calls.append(begun.pop(pid) + line.split(" resumed>", 1)[1])
            else:
                calls.append(line)
    log.unlink()
    return calls


def cut_and_go_on(folder: Path, cuts: int, rng: random.Random) -> int:
    """Cut the power at so many instants of a run, and of one that goes on after a kill; compare what each then ends in.

    Returns in how many cases there was a checkpoint to go on from.
    """
    trial = Trial(folder / "trial")
    trial.run(WORDS, "whole", None)
    whole = trial.only_run("whole")
    (folder / "begun").mkdir()
    went_on = 0
    for session, number in (("begun", cuts - cuts // 2), ("resumed", cuts // 2)):
        disk, probe = Disk(folder / session), Disk(folder / session)
        calls = trace(folder / session, [sys.executable, "-m", "genexp", "train", *OFTEN, *WORDS])
        changing = [position for position, call in enumerate(calls) if probe.call(call)]
        instants = set(rng.sample(changing, number))
        for position, call in enumerate(calls):
            disk.call(call)
            if session == "begun" and position == changing[len(changing) // 2]:
                disk.kill(folder / "resumed")
            if position in instants:
                place = f"cut-{session}-{position}"
                disk.cut(rng, folder / "trial" / place)
                went_on += bool(list((folder / "trial" / place).glob("outputs/*/*/checkpoints/step-*.pt")))
                trial.run(WORDS, f"{place}/outputs", None)
                same(whole, trial.only_run(f"{place}/outputs"))
                shutil.rmtree(folder / "trial" / place)
    return went_on


def main() -> None:
    if not can_trace():
        sys.exit("power cuts are left out: strace is not installed, or may not trace")
    cuts = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 10**6
    with tempfile.TemporaryDirectory() as folder:
        went_on = cut_and_go_on(Path(folder), cuts, random.Random(seed))
    print(f"{cuts} power cuts, {went_on} of them with a checkpoint left: all ended bit for bit (seed {seed})")


if __name__ == "__main__":
    main()
