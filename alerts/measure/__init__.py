"""What rules look at: asked of the store, or known in memory."""
