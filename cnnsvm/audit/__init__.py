"""Whether a classifier could cheat on a data set."""
