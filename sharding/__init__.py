"""From published datasets and folders of sounds to deduplicated shards.  No torch, no ray."""
