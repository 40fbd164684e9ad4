"""What `pseudolabel` is made of: a plan, a teacher, shards, an estimate, and ways to look at the result."""
