"""The command line of all of Earshot: the commands of ``sharding`` and ``training``, locally or on a Ray cluster."""
