"""From files to pixels, rows, groups and folds."""
