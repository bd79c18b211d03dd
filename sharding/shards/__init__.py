"""Plans, writes, opens and verifies shards."""
