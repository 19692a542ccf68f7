"""One file per source of facts: metrics pages, GPU, host, the engines own spans."""
