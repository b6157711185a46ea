"""Whether an error says that memory was short, whoever raised it."""


def is_short_of_memory(error: BaseException) -> bool:
    """Tell whether memory, of the machine or of a GPU, was not enough.

    The allocators of torch and OpenCV raise what also means other things.
    """
    if isinstance(error, MemoryError):
        return True
    said = str(error).lower()
    return any(text in said for text in ("out of memory", "allocate memory", "insufficient memory"))
