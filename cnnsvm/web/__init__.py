"""A local page and an HTTP API that judge images: thin, they ask what the command line asks."""
