"""Parts of the loader's benches: the clips, the other loaders, growth and shuffling."""
