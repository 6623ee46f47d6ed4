"""Files on their way to and from a host: the project there, results home."""
