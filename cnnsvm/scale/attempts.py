"""How often a block was begun, so that an image that kills its worker cannot do so for ever."""

from cnnsvm.scale.output import Output

#: A block is begun so often at full speed, images kill so many workers until they are left out,
#: and so often a block is begun at all.
FAST, KILLED, MOST = 2, 2, 20


class Attempts:
    """A note beside the partitions: of a block that was begun and is not finished."""

    def __init__(self, output: Output, name: str) -> None:
        self.output, self.file = output, f"_begun-{name}.json"
        self.times = 0
        self.killed: dict[str, int] = {}

    def begin(self) -> None:
        """Count one more; a ValueError is raised if there were too many."""
        kept = self.output.read_note(self.file)
        self.times, self.killed = kept.get("times", 0) + 1, kept.get("killed", {})
        if (at := kept.get("at")) is not None:
            self.killed[at] = self.killed.get(at, 0) + 1
        if self.times > MOST:
            raise ValueError(
                f"{self.output.place}/{self.file}: begun {MOST} times and never finished, the "
                "workers died. Give them more memory, or leave the images of this block out; "
                "delete that file to try again."
            )
        self._write(None)

    @property
    def is_careful(self) -> bool:
        """Whether images are judged one by one, each noted before."""
        return self.times > FAST

    def reason_to_leave(self, index: int) -> str | None:
        """Say why an image is not judged, if it is not."""
        killed = self.killed.get(str(index), 0)
        if killed < KILLED:
            return None
        return f"{killed} workers died while they judged it. Look at it apart from others."

    def note(self, index: int) -> None:
        """Note the image that is judged next."""
        self._write(str(index))

    def end(self) -> None:
        """Forget a block that is finished."""
        self.output.remove_note(self.file)

    def _write(self, at: str | None) -> None:
        note = {"times": self.times, "killed": self.killed, "at": at}
        self.output.write_note(self.file, note)
