"""``python -m cnnsvm``: the same as the command ``cnnsvm``."""

from cnnsvm.cli import main

raise SystemExit(main())
