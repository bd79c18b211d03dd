"""The commands of ``earshot`` about models, one module for each."""
