"""One connection to a host by SSH, and what is run over it: the way there, keys, login, programs."""
