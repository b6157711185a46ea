"""What a user can mend is one message, not a traceback."""

import sys
from collections.abc import Callable


def guard(name: str, action: Callable[[], int]) -> int:
    """Run a command and return its exit status.

    Parameters
    ----------
    name : str
        What the message starts with.
    action : callable
        Returns the exit status.

    Returns
    -------
    int
        That of the action; 2 after an error in what it was given, 130 after an interruption.
        Errors of the program itself are raised.
    """
    try:
        return action()
    except (ValueError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    except RuntimeError as error:  # torch.OutOfMemoryError is one, and torch may not be loaded
        if "out of memory" not in str(error).lower():
            raise
        remedy = "Lower --batch-size or --crop-size (--tile-size, where a localiser predicts); "
        remedy += "what is finished is kept."
        print(f"{name}: {error}\n{remedy}", file=sys.stderr)
        return 2
