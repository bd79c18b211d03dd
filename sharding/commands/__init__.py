"""The commands of ``earshot`` about shards, one module for each."""
