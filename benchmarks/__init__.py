"""What it costs, as ratios against a reference run in the same run."""
