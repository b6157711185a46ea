"""Mistakes of a user become one message, not a traceback."""

import sys
from collections.abc import Callable


def guard(name: str, action: Callable[[], int]) -> int:
    """Run a command and return its exit status: 2 for wrong input, 130 for an interruption.

    Messages start with ``name``. Errors of the program itself are raised.
    """
    try:
        return action()
    except (ValueError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command resumes.", file=sys.stderr)
        return 130
    except RuntimeError as error:  # torch.OutOfMemoryError is one, and torch may not be loaded
        if "out of memory" not in str(error).lower():
            raise
        remedy = "Lower --batch-size or --crop-size (of a localiser --tile-size) and resume."
        print(f"{name}: {error}\n{remedy}", file=sys.stderr)
        return 2
