"""Whether a classifier could cheat on a data set, and what the data set holds."""
